"""NVIDIA GPUs through NVML: what each has, what is used, and by whom. Never CUDA: a context would hold memory for ever.

`pynvml` is imported only where the driver's library is. Its numbers are the machine's: CUDA_VISIBLE_DEVICES hides GPUs from
vllama, but does not renumber them. A MIG device counts as a GPU of its own, in place of the one that it is a part of;
where a GPU is split into several, all devices are counted through.
"""

import ctypes
import importlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vllama.host.hidden_use import HiddenUse
from vllama.host.host import DeviceInfo, DeviceSample

LIBRARY = "libnvidia-ml.so.1"
PROC = Path("/proc")

log = logging.getLogger(__name__)


class NoDriver(Exception):
    """There is no NVIDIA driver that answers; the message is for the person who reads `info`."""


class Driver:
    """NVML, initialized. Each call may raise `self.error`."""

    def __init__(self) -> None:
        try:
            ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise NoDriver(f"no NVIDIA driver ({_first_line(error)}): engines run on CPU") from error
        self.nvml: Any = importlib.import_module("pynvml")
        self.error: type[Exception] = self.nvml.NVMLError
        try:
            self.nvml.nvmlInit()
        except self.error as error:
            raise NoDriver(
                f"the NVIDIA driver does not work (NVML: {error}): engines run on CPU; `nvidia-smi` says more"
            ) from error

    def close(self) -> None:
        self.nvml.nvmlShutdown()

    def devices(self) -> Iterator[tuple[int, Any]]:
        """Number of the GPU and handle of each device that engines can use, MIG devices in place of their GPU."""
        for index in range(self.nvml.nvmlDeviceGetCount()):
            try:
                gpu = self.nvml.nvmlDeviceGetHandleByIndex(index)
                parts = list(self._parts(gpu))
            except self.error as error:
                log.warning("GPU %d is left out: NVML says %s", index, error)
                continue
            for handle in parts or [gpu]:
                yield index, handle

    def memory(self, handle: Any) -> tuple[int, int]:
        """Bytes that CUDA can use, and bytes used of them. What the driver keeps for itself is neither, where it says so."""
        try:
            found = self.nvml.nvmlDeviceGetMemoryInfo(handle, version=self.nvml.nvmlMemory_v2)
        except (self.nvml.NVMLError_FunctionNotFound, self.nvml.NVMLError_NotSupported):
            found = self.nvml.nvmlDeviceGetMemoryInfo(handle)
            return found.total, found.used
        return found.total - found.reserved, found.used

    def processes(self, handle: Any) -> dict[int, int]:
        """Bytes by pid, of the processes that the driver shows and whose use it knows."""
        try:
            found = self.nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except self.nvml.NVMLError_NotSupported:
            return {}
        return {process.pid: process.usedGpuMemory for process in found if process.usedGpuMemory is not None}

    def _parts(self, gpu: Any) -> Iterator[Any]:
        """The MIG devices of a GPU; none where MIG is off or unknown."""
        try:
            on, _ = self.nvml.nvmlDeviceGetMigMode(gpu)
            slots = self.nvml.nvmlDeviceGetMaxMigDeviceCount(gpu) if on else 0
        except (self.nvml.NVMLError_NotSupported, self.nvml.NVMLError_FunctionNotFound):
            return
        for slot in range(slots):
            try:
                yield self.nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, slot)
            except self.nvml.NVMLError_NotFound:
                continue


class GpuDevice:
    """One GPU, or one MIG device. One that falls off the bus has no free memory, until it answers again."""

    def __init__(self, driver: Driver, handle: Any, index: int, limit_bytes: int | None) -> None:
        self.driver = driver
        self._handle = handle
        capacity, _ = driver.memory(handle)
        uuid, name = driver.nvml.nvmlDeviceGetUUID(handle), driver.nvml.nvmlDeviceGetName(handle)
        total = min(capacity, limit_bytes or capacity)
        self._info = DeviceInfo(uuid, "cuda", index, name, total, physical_bytes=capacity)
        self._hidden = HiddenUse()
        self._lock = threading.Lock()  # samples come from several threads
        self._gone = ""
        self._estimated = False

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def notes(self) -> tuple[str, ...]:
        """What is wrong with it, for `info`."""
        name = f"GPU {self._info.index} ({self._info.name}, {self._info.id})"
        gone = f"{name} does not answer (NVML: {self._gone}): nothing is started on it"
        guess = (
            f"{name}: NVML does not show vllama's processes (a container?), so each model's use is estimated"
        )
        return (*([gone] if self._gone else ()), *([guess] if self._estimated else ()))

    @property
    def gone(self) -> str:
        """Why it is out of use, "" while it answers."""
        return self._gone

    def sample(self, trees: Mapping[str, Sequence[int]], helpers: Sequence[int]) -> DeviceSample:
        """Measured now. Helpers never hold GPU memory."""
        with self._lock:
            return self._sample(trees)

    def moving(self, launch_id: str, trees: Mapping[str, Sequence[int]]) -> None:
        """This launch begins to take memory here or to give it back."""
        with self._lock:
            self._sample(trees)
            self._hidden.moving(launch_id)

    def _sample(self, trees: Mapping[str, Sequence[int]]) -> DeviceSample:
        total = self._info.total_bytes
        try:
            capacity, used = self.driver.memory(self._handle)
            shown = self.driver.processes(self._handle)
        except self.driver.error as error:
            if not self._gone:
                log.error("%s does not answer any more: NVML says %s", self._info.id, error)
            self._gone = str(error)
            return DeviceSample(self._info.id, total, 0, dict.fromkeys(trees, 0))
        self._gone = ""
        # A pid that does not exist here is a number of another namespace: nobody's.
        known = {pid: size for pid, size in shown.items() if (PROC / str(pid)).exists()}
        used_by = {launch_id: sum(known.get(pid, 0) for pid in pids) for launch_id, pids in trees.items()}
        ownerless = max(used - sum(known.values()), 0)
        guesses = self._hidden.look(ownerless, used_by, tuple(trees), seen=any(used_by.values()))
        self._estimated = bool(guesses)
        used_by |= guesses
        free = min(total - sum(used_by.values()), capacity - used)
        return DeviceSample(self._info.id, total, max(free, 0), used_by, estimated=self._estimated)


def find_gpus(
    limit_bytes: int | None, visible: str | None, driver: Callable[[], Driver] = Driver
) -> tuple[tuple[GpuDevice, ...], str]:
    """The GPUs that engines may use, and why there is none ("" when there are). `visible` is CUDA_VISIBLE_DEVICES or None."""
    try:
        found = driver()
    except NoDriver as error:
        return (), str(error)
    devices: list[GpuDevice] = []
    hidden = 0
    try:
        listed = list(found.devices())
        split = len({gpu for gpu, _ in listed}) < len(listed)
        for position, (gpu, handle) in enumerate(listed):
            try:
                device = GpuDevice(found, handle, position if split else gpu, limit_bytes)
            except found.error as error:
                log.warning("GPU %d is left out: NVML says %s", gpu, error)
                continue
            if visible is None or _is_visible(device.info, visible):
                devices.append(device)
            else:
                hidden += 1
    except found.error as error:
        return (), f"the NVIDIA driver lists no GPUs (NVML: {error}): engines run on CPU"
    if devices:
        return tuple(devices), ""
    if hidden:
        return (), f"CUDA_VISIBLE_DEVICES={visible!r} hides all {hidden} GPUs: engines run on CPU"
    return (), "the NVIDIA driver shows no GPU: engines run on CPU"


def _is_visible(info: DeviceInfo, visible: str) -> bool:
    """Whether CUDA_VISIBLE_DEVICES names it, by number or by the beginning of its UUID."""
    names = [name.strip() for name in visible.split(",")]
    return any(
        name == str(info.index) or (not name.lstrip("-").isdecimal() and name and info.id.startswith(name))
        for name in names
    )


def _first_line(error: OSError) -> str:
    return str(error).partition("\n")[0]
