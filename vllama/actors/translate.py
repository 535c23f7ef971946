"""Between the edge's words and the actors': settings to policies, verbs to commands, refusals to errors."""

import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any

from vllama.actors.core import messages as msg
from vllama.actors.core.broker_state import BrokerState
from vllama.config import ModelConfig, VllamaConfig
from vllama.errors import (
    InstanceStopped,
    NoMemory,
    Overtaken,
    QueueFull,
    ShuttingDown,
    StartFailed,
    VllamaError,
)
from vllama.host.host import DeviceInfo, HostInfo, ModelFiles

# Keys of an entry that hold without a restart: the engine hears nothing of them.
_LIVE = ("aliases", "pinned", "priority", "unload_timeout", "unload_mode", "sleep_level")
_DIGEST_KEY = os.urandom(16)  # of this process: what `env` holds must not be guessed from the journal

ERRORS: dict[str, type[VllamaError]] = {
    cls.code: cls
    for cls in (InstanceStopped, NoMemory, Overtaken, QueueFull, ShuttingDown, StartFailed, VllamaError)
}


def to_command(verb: str, number: int, level: int, *, force: bool) -> msg.Start | msg.Stop | msg.Sleep:
    """The message of an operator's verb; sleep at level 3 is a stop."""
    match verb:
        case "start":
            return msg.Start(number)
        case "stop":
            return msg.Stop(number)
        case _:
            return msg.Stop(number) if level == 3 else msg.Sleep(number, level, force)


def to_error(refusal: msg.Refusal, model: str) -> VllamaError:
    """A core's refusal as the error that the edge raises."""
    kind = ERRORS.get(refusal.code, VllamaError)
    return kind(refusal.message, model=model, retry_after_s=refusal.retry_after_s)


def to_broker_policy(config: VllamaConfig, ram_total_bytes: int) -> msg.BrokerPolicy:
    """The broker's part of the settings. Of the host's RAM, half is for level-1 sleepers where nothing else is said."""
    copies_max = config.sleep_ram_max_bytes
    return msg.BrokerPolicy(
        config.max_wait_s,
        config.wait_timeout_s,
        config.busy_grace_s,
        config.memory_return_timeout_s,
        policy=config.policy,
        sleep_ram_max_bytes=ram_total_bytes // 2 if copies_max is None else copies_max,
    )


def to_policy(config: VllamaConfig, model: ModelConfig, *, on_gpu: bool) -> msg.Policy:
    """One instance's settings: its own entry over the server's. Where costs decide and nobody has named a sleep level, the broker
    chooses it; on a CPU, where level 1 keeps the weights where they are, there is nothing to choose."""
    named = model.sleep_level is not None or config.sources["sleep_level"] != "default"
    return msg.Policy(
        any_level=config.policy == "cost" and on_gpu and not named,
        queue_max=config.queue_max,
        sleep_level=model.sleep_level or config.sleep_level,
        unload_timeout=model.unload_timeout or config.unload_timeout,
        unload_mode=model.unload_mode or config.unload_mode,
        stop_timeout_s=config.stop_timeout_s,
        drain_timeout_s=config.drain_timeout_s,
        pinned=model.pinned,
        priority=model.priority,
        pin_idle_s=config.pin_idle_s,
        residue_growth_max_bytes=config.residue_growth_max_bytes,
        misses_max=config.wake_misses_max,
        on_gpu=on_gpu,
        restarts_max=config.restarts_max,
        restarts_period_s=config.restarts_period_s,
        backoff_s=config.backoff_s,
        backoff_max_s=config.backoff_max_s,
    )


def to_settings(config: VllamaConfig, files: ModelFiles, model: ModelConfig) -> tuple[tuple[str, str], ...]:
    """What an engine of this model is started with, each by its name and a digest."""
    values = launch_settings(config, files, model)
    return tuple((name, _digest(value)) for name, value in sorted(values.items()))


def launch_settings(config: VllamaConfig, files: ModelFiles, model: ModelConfig) -> dict[str, Any]:
    """What an engine of this model is started with."""
    values: dict[str, Any] = model.model_dump(mode="json", exclude=set(_LIVE))
    levels = (model.sleep_level or config.sleep_level, model.unload_mode or config.unload_mode)
    values["sleep_level"] = min(levels) < 3  # where both are 3 it is started without sleep mode
    values["revision"] = files.revision
    return values


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.blake2s(text, key=_DIGEST_KEY, digest_size=6).hexdigest()


def describe_devices(devices: Iterable[DeviceInfo], books: BrokerState) -> list[dict[str, Any]]:
    """What `info` and `ps` show of devices: what they are, what is booked on them, and what may be granted."""
    return [
        {
            "id": d.id,
            "kind": d.kind,
            "name": d.name,
            "total_bytes": d.total_bytes,
            "booked_bytes": books.booked_bytes(d.id) if d.id in books.devices else 0,
            "shared_bytes": books.devices[d.id].shared_bytes if d.id in books.devices else 0,
            "free_bytes": books.free_bytes(d.id) if d.id in books.devices else 0,
        }
        for d in devices
    ]


def describe_ram(books: BrokerState) -> dict[str, Any]:
    """What `info` and `ps` show of the host's RAM: what level-1 sleepers may take of it, and who has."""
    return {
        "sleep_ram_max_bytes": books.policy.sleep_ram_max_bytes,
        "copies_bytes": books.copies_bytes(),
        "copies_of": sorted(books.copies),
    }


def describe(config: VllamaConfig, host: HostInfo) -> dict[str, Any]:
    """What `info` shows of settings and host."""
    about = {
        "id": host.id,
        "versions": dict(host.versions),
        "zygote": host.zygote,
        "start_mode_reason": host.start_mode_reason,
        "notes": list(host.notes),
    }
    settings = config.model_dump(mode="json")
    return {"config": settings, "sources": config.sources, "host": about}
