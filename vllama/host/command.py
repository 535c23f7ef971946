"""ModelConfig and ModelFiles into the arguments and the environment of an engine. Pure.

What belongs to vllama (address, names, the sleeping worker) cannot be given by `extra_args`; everything else can, and
wins over what vllama would have chosen.
"""

import json
import math
from collections.abc import Iterable

from vllama.config import ModelConfig, VllamaConfig
from vllama.errors import ConfigError
from vllama.host.estimate import (
    CUDA_CONTEXT_BYTES,
    Estimate,
    Footprint,
    calibrated,
    estimate,
    kv_bytes_for_lease,
)
from vllama.host.host import DeviceInfo, LaunchSpec, ModelFiles
from vllama.host.processes import SERVER_ENV

CPU_WORKER = "vllama.host.cpu_worker.SleepingCPUWorker"
KV_BYTES_LEAST = 2**20  # vLLM wants a size even for a model that keeps no KV cache; it takes nothing then

RESERVED = frozenset({
    "host", "port", "uds", "model", "served-model-name", "api-key", "root-path", "ssl-keyfile", "ssl-certfile",
    "headless", "grpc", "api-server-count", "revision",
})  # fmt: skip
# vLLM's flags that have no --no- form: false is their absence.
STORE_TRUE = frozenset({
    "disable-log-stats", "disable-log-requests", "aggregate-engine-logging", "data-parallel-multi-port-external-lb",
})  # fmt: skip

# Flags that take a list as one JSON text, or one item each time they stand; every other list is one argument an item.
JSON_LISTS = frozenset({"allowed-origins", "allowed-methods", "allowed-headers"})
APPENDED = frozenset({"middleware"})


def launch_spec(
    config: VllamaConfig,
    model: ModelConfig,
    files: ModelFiles,
    devices: tuple[DeviceInfo, ...],
    lease_bytes: int,
    launch_id: str,
    port_wanted: int = 0,
    *,
    sleep_mode: bool = True,
    footprint: Footprint | None = None,
) -> LaunchSpec:
    """How to start this model on these devices under a lease of `lease_bytes` on each; `footprint` is what it took
    before, if that is known. Raises ConfigError."""
    cuda = tuple(device for device in devices if device.kind == "cuda")
    env = dict(SERVER_ENV)
    if cuda:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(device.id for device in cuda)
    return LaunchSpec(
        launch_id=launch_id,
        model=files.id,
        argv=engine_argv(
            config, model, files, devices, lease_bytes, sleep_mode=sleep_mode, footprint=footprint
        ),
        env=env | dict(model.env),
        python=model.engine_python or config.engine_python,
        devices=tuple(device.id for device in devices),
        mode=config.engine_start,
        port_wanted=port_wanted,
    )


def engine_argv(
    config: VllamaConfig,
    model: ModelConfig,
    files: ModelFiles,
    devices: tuple[DeviceInfo, ...],
    lease_bytes: int,
    *,
    sleep_mode: bool = True,
    footprint: Footprint | None = None,
) -> tuple[str, ...]:
    """vLLM's server arguments, `--host` and `--port` left out. Raises ConfigError for an extra argument that is ours."""
    size = calibrated(estimate(files, model, config, devices[0]), footprint, model, devices[0])
    extra = {_flag_name(name): value for name, value in model.extra_args.items()}
    if taken := sorted(RESERVED & extra.keys()):
        raise ConfigError(
            f"extra_args of {files.id}: {', '.join(taken)} belongs to vllama; remove it from models.yaml"
            + ("; the entry's own key revision says which is served" if "revision" in taken else ""),
            model=files.id,
        )
    chosen: dict[str, object] = {
        "model": files.path,
        "served-model-name": [files.id, *model.aliases],  # the first is the one that answers name
        "enable-lora": True if model.lora else None,
        "lora-modules": [f"{name}={path}" for name, path in model.lora.items()],
        "max-model-len": model.max_model_len or -1,
        "dtype": model.dtype if model.dtype != "auto" else None,
        "trust-remote-code": True if model.trust_remote_code else None,
        "tensor-parallel-size": model.tensor_parallel_size if model.tensor_parallel_size > 1 else None,
        "runner": "pooling" if files.kind in ("embedding", "rerank") else None,
    }
    if devices[0].kind == "cuda":
        chosen |= _on_cuda(model, size, devices[0], lease_bytes)
        chosen["enable-sleep-mode"] = True if sleep_mode else None
    else:
        chosen |= _on_cpu(size, lease_bytes)
    return tuple(argument for name, value in (chosen | extra).items() for argument in flag(name, value))


def _on_cpu(size: Estimate, lease_bytes: int) -> dict[str, object]:
    return {
        "enforce-eager": True,
        "worker-cls": CPU_WORKER,
        "kv-cache-memory-bytes": max(kv_bytes_for_lease(size, lease_bytes), KV_BYTES_LEAST),
    }


def _on_cuda(model: ModelConfig, size: Estimate, device: DeviceInfo, lease_bytes: int) -> dict[str, object]:
    """With `auto` the KV cache is given by its size, and vLLM's share is no more than a demand: so much must be free when it
    starts, its own CUDA context (which it does not count) already taken. So the demand stays below what was granted."""
    share, kv = model.gpu_memory_utilization, model.kv_cache_memory
    granted = max(math.floor((lease_bytes - CUDA_CONTEXT_BYTES) / device.whole_bytes * 1e4), 1) / 1e4
    if share == "auto":
        share = granted
        if kv is None and size.kv_bytes:
            kv = max(kv_bytes_for_lease(size, lease_bytes), KV_BYTES_LEAST)
    elif granted < share - 1e-3:  # the lease was cut down to what is free, or by the memory limit
        share = granted
    return {
        "gpu-memory-utilization": f"{share:.4f}",
        "kv-cache-memory-bytes": kv,
    }


def flag(name: str, value: object) -> Iterable[str]:
    """One argument as vLLM's parser reads it: a switch, `--no-` for false, JSON for a mapping, nothing for null."""
    option = f"--{_flag_name(name)}"
    match value:
        case None:
            return ()
        case True:
            return (option,)
        case False:
            return () if _flag_name(name) in STORE_TRUE else (f"--no-{_flag_name(name)}",)
        case list() if _flag_name(name) in JSON_LISTS:
            return (option, json.dumps(value))
        case list() if _flag_name(name) in APPENDED:
            return tuple(f"{option}={_text(item)}" for item in value)
        case list() | tuple():
            return (option, *map(_text, value)) if value else ()
        case _ if (text := _text(value)).startswith("-") and not isinstance(value, int | float):
            return (f"{option}={text}",)
        case _:
            return (option, _text(value))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _flag_name(name: str) -> str:
    return name.strip().lstrip("-").replace("_", "-")
