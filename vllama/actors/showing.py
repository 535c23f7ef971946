"""What an operator may look at before anything runs: the models there are, and what one would take of which device, and why."""

import asyncio
from dataclasses import asdict
from typing import Any

from vllama.actors.core.state import InstanceView
from vllama.actors.placement import need_of
from vllama.actors.system import System
from vllama.config import ModelConfig
from vllama.errors import ConfigError, ModelUnknown
from vllama.host.details import details
from vllama.host.estimate import Footprint, calibrated, estimate
from vllama.host.host import DeviceInfo, ModelFiles

HIDDEN = "(hidden)"
SECRET_PARTS = ("key", "token", "secret", "password")


async def listed(system: System) -> list[dict[str, Any]]:
    """Every complete model of the cache, with its state. From memory, once the cache has been looked at."""
    views = {view.model: view for view in system.ps()}
    return [
        {
            "model": files.id,
            "kind": files.kind,
            "size_bytes": files.weights_bytes,
            "modified_at": files.modified_at,
            "revision": files.revision,
            "context_length": system.catalog.of(files.id).max_model_len or files.context_length,
            "aliases": list(system.catalog.of(files.id).aliases),
            "problem": files.problem,
            **_state(views.get(files.id)),
        }
        for files in await system.models()
    ]


async def shown(system: System, name: str) -> dict[str, Any]:
    """One model: its files, its entry of models.yaml, what it will take. Raises ModelUnknown."""
    model = (await system.route(name)).model
    await system.models()
    files = system.catalog.files.get(model)
    if files is None:
        raise ModelUnknown(f"{model} has no files any more; its engine runs on", model=model)
    found = await asyncio.to_thread(details, files.path, files.config)
    entry = system.catalog.of(model)
    view = next((view for view in system.ps() if view.model == model), None)
    return {
        "model": model,
        "kind": files.kind,
        "architecture": files.architecture,
        "parameters": found.parameters,
        "quantization": found.quantization,
        "dtypes": dict(found.dtypes),
        "context_length": files.context_length,
        "revision": files.revision,
        "modified_at": files.modified_at,
        "path": files.path,
        "size_bytes": found.size_bytes,
        "files": [{"name": name, "bytes": size} for name, size in found.files],
        "problem": files.problem,
        "aliases": list(entry.aliases),
        "adapters": list(entry.lora),
        "entry": _entry(entry),
        "needs": _needs(system, files, entry),
        "took_s": _took_s(system, model),
        **_state(view),
    }


def _took_s(system: System, model: str) -> dict[str, float]:
    """What its moves have taken since the server began, a moving average: start, wake-1, wake-2, sleep-1, sleep-2, stop."""
    known = system.journal.states.broker().known.get(model)
    return {move: round(took_s, 3) for move, took_s in known.seconds.items()} if known is not None else {}


def _state(view: InstanceView | None) -> dict[str, Any]:
    if view is None:
        return {"phase": "stopped", "level": 0}
    return {"phase": view.phase, "level": view.level}


def _entry(entry: ModelConfig) -> dict[str, Any]:
    """What models.yaml sets. What may be a secret is named, not told."""
    told = entry.model_dump(mode="json", include=set(entry.model_fields_set))
    if "env" in told:
        told["env"] = dict.fromkeys(told["env"], HIDDEN)
    extra = told.get("extra_args", {})
    for name in extra:
        if any(part in name.lower() for part in SECRET_PARTS):
            extra[name] = HIDDEN
    return told


def _needs(system: System, files: ModelFiles, entry: ModelConfig) -> dict[str, Any]:
    """Of each device on which it could be, what it takes there; and which of them it will be."""
    devices, measured = system.footprints(files)
    try:
        need = need_of(files, entry, system.config, devices, measured)
    except ConfigError as error:
        return {"problem": error.message, "where": "", "devices": []}
    gpus = [device for device in devices if device.kind == "cuda"]
    able = [device for device in gpus or devices if not need.devices or device.id in need.devices]
    if need.devices:
        where = "of each of these" if len(need.devices) > 1 else "of this one"
        where += ", as its entry says" if entry.devices else ": one to each of its ranks, the roomiest"
    elif len(able) > 1:
        where = "of one of these: where it sleeps, else where least has to go for it"
    else:
        where = "of the only device there is"
    told = [_need(system, files, entry, device, measured.get(device.id)) for device in able]
    return {"problem": "", "where": where, "devices": told}


def _need(
    system: System, files: ModelFiles, entry: ModelConfig, device: DeviceInfo, found: Footprint | None
) -> dict[str, Any]:
    guess = estimate(files, entry, system.config, device)
    size = calibrated(guess, found, entry, device)
    return {
        "device": device.id,
        "name": device.name,
        "total_bytes": device.total_bytes,
        "need_bytes": size.need_bytes,
        "weights_bytes": size.weights_bytes,
        "kv_bytes": size.kv_bytes,
        "kv_tokens": size.context_length if size.kv_bytes else 0,
        "overhead_bytes": size.overhead_bytes,
        "measured": asdict(found) if found is not None else None,
        "fits": size.need_bytes <= device.total_bytes,
        "why": _why(entry, size != guess),
    }


def _why(entry: ModelConfig, measured: bool) -> str:
    """Where the figures come from."""
    if entry.gpu_memory_utilization != "auto":
        return f"gpu_memory_utilization is {entry.gpu_memory_utilization} in its entry, and the KV cache is what that leaves"
    kv = (
        "kv_cache_memory says the KV cache"
        if entry.kv_cache_memory is not None
        else "max_model_len says the KV cache"
        if entry.max_model_len
        else "the KV cache is for the whole context, at most kv_default_max"
    )
    rest = "the rest was measured when it ran" if measured else "the rest is a guess until it has run once"
    return f"the weights are as in its files, {kv}, {rest}"
