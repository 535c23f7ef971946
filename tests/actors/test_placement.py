"""Tables: which devices a model's entry names, and what it needs of each."""

from typing import Any

import pytest

from vllama.actors.placement import need_of
from vllama.config import ModelConfig, VllamaConfig
from vllama.errors import ConfigError
from vllama.host.estimate import CUDA_CONTEXT_BYTES, PINNED_PART_MAX
from vllama.host.host import DeviceInfo, ModelFiles

GIB = 2**30
CONFIG = VllamaConfig()
FILES = ModelFiles("o/m", "/m", "r", "chat", "X", 4 * GIB, 512, {}, 0.0)
CPU = DeviceInfo("cpu", "cpu", 0, "RAM", 8 * GIB)
GPUS = tuple(DeviceInfo(f"G{n}", "cuda", n, "GPU", size * GIB) for n, size in enumerate((16, 24, 24)))


def need(*devices: DeviceInfo, **model: Any) -> Any:
    return need_of(FILES, ModelConfig(**model), CONFIG, devices or GPUS)


@pytest.mark.parametrize(
    ("model", "ids"),
    [
        ({}, ()),
        ({"devices": [1]}, ("G1",)),
        ({"devices": [2, 0], "tensor_parallel_size": 2}, ("G2", "G0")),
        ({"devices": [0, 1]}, ("G0",)),  # one rank uses one
        ({"devices": [1, 1, 0], "tensor_parallel_size": 2}, ("G1", "G0")),
        ({"tensor_parallel_size": 2}, ("G1", "G2")),
        ({"extra_args": {"pipeline_parallel_size": 3}}, ("G1", "G2", "G0")),
    ],
)
def test_which_devices(model: dict[str, Any], ids: tuple[str, ...]) -> None:
    assert need(**model).devices == ids


def test_weights_are_spread_and_the_share_is_of_each_device() -> None:
    both = need(devices=[1, 2], tensor_parallel_size=2, gpu_memory_utilization=0.5)
    assert both.weights_bytes == 2 * GIB
    assert both.bytes == 12 * GIB + CUDA_CONTEXT_BYTES


def test_level_1_takes_host_ram_for_all_ranks_and_none_on_cpu() -> None:
    whole = 4 * GIB * PINNED_PART_MAX
    assert need().copy_bytes == pytest.approx(whole)
    assert need(devices=[1, 2], tensor_parallel_size=2).copy_bytes == pytest.approx(whole)
    assert need(CPU).copy_bytes == 0


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"devices": [0, 7]}, "names 7, but this machine has the GPUs 0, 1, 2"),
        ({"devices": [0], "tensor_parallel_size": 2}, "want 2 GPUs, but `devices` names 1"),
        ({"tensor_parallel_size": 4}, "want 4 GPUs, but this machine has 3"),
    ],
)
def test_what_cannot_be_is_said(model: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        need(**model)
    assert caught.value.model == "o/m"


def test_without_gpus_it_is_the_cpu_whatever_is_named() -> None:
    assert need(CPU, devices=[3]).devices == ()
    assert need(CPU).bytes == need(CPU, devices=[0]).bytes
