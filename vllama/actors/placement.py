"""What a model needs and of which devices: its entry in models.yaml against what this machine has. Pure."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from vllama.actors.core import messages as msg
from vllama.config import ModelConfig, VllamaConfig
from vllama.errors import ConfigError
from vllama.host.estimate import Footprint, calibrated, estimate, world_size
from vllama.host.host import DeviceInfo, ModelFiles

NOTHING: Mapping[str, Footprint] = MappingProxyType({})


def need_of(
    files: ModelFiles,
    model: ModelConfig,
    config: VllamaConfig,
    devices: Iterable[DeviceInfo],
    measured: Mapping[str, Footprint] = NOTHING,
) -> msg.Need:
    """The need of each device, and the devices' ids: none named means that any one will do. What was measured, by device,
    replaces the guessed part of the estimate. Raises ConfigError.

    On CPU a level-1 sleeper's weights stay where they are: they are its residue, and no copy beside it."""
    found = tuple(devices)
    gpus = {device.index: device for device in found if device.kind == "cuda"}
    if not gpus:  # `devices` are GPUs; where there are none, engines run on CPU
        size = calibrated(
            estimate(files, model, config, found[0]), measured.get(found[0].id), model, found[0]
        )
        return msg.Need(size.need_bytes, size.weights_bytes)
    chosen = _chosen(files.id, model, gpus)
    roomiest = max(chosen or gpus.values(), key=lambda device: device.total_bytes)
    known = [measured[gpu.id] for gpu in chosen or gpus.values() if gpu.id in measured]
    most = max(known, key=lambda footprint: footprint.awake_bytes - footprint.kv_bytes, default=None)
    size = calibrated(estimate(files, model, config, roomiest), most, model, roomiest)
    copy_bytes = size.copy_bytes * max(len(chosen), 1)
    return msg.Need(size.need_bytes, size.weights_bytes, tuple(device.id for device in chosen), copy_bytes)


def _chosen(name: str, model: ModelConfig, gpus: dict[int, DeviceInfo]) -> tuple[DeviceInfo, ...]:
    """The GPUs of this model, one to each rank; () when it wants one and does not say which."""
    ranks = world_size(model)
    if missing := [index for index in model.devices if index not in gpus]:
        there = ", ".join(map(str, sorted(gpus)))
        raise ConfigError(
            f"{name}: `devices` names {', '.join(map(str, missing))}, but this machine has the GPUs {there}; "
            "change models.yaml",
            model=name,
        )
    if model.devices:
        have, where = tuple(gpus[index] for index in dict.fromkeys(model.devices)), "`devices` names"
    elif ranks == 1:
        return ()
    else:  # the roomiest, in the machine's order among equals
        have = tuple(sorted(gpus.values(), key=lambda gpu: (-gpu.total_bytes, gpu.index)))
        where = "this machine has"
    if len(have) < ranks:
        raise ConfigError(
            f"{name}: tensor and pipeline parallelism want {ranks} GPUs, but {where} {len(have)}; change models.yaml",
            model=name,
        )
    return have[:ranks]
