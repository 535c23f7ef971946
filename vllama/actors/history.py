"""The latest part of the journal for a reader that draws it: the state before it, then its records, which lead to now."""

import asyncio
from collections.abc import Sequence
from typing import Any

from vllama.actors.asking import device_names
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.instance_state import State
from vllama.actors.core.state import StateManager
from vllama.actors.journal import record_json
from vllama.actors.record import Record
from vllama.actors.system import System
from vllama.actors.wording import sentence


async def history(system: System, records_max: int) -> dict[str, Any]:
    """`base`: what was so before the first of `records`; `seq` is the last one's. The fold is another thread's work."""
    names = await device_names(system)
    at, base = system.journal.base()
    seq, held = system.journal.seq, tuple(system.journal.still())
    now = {"now": system.journal.now(), "seq": seq, "ram": system.ram()}
    devices = [device | {"label": names.get(device["id"], device["id"])} for device in system.devices()]
    before, latest = await asyncio.to_thread(_split, base, at, held, records_max)
    return now | {"devices": devices, "base": _plain(before), "records": [told(r) for r in latest]}


def told(record: Record) -> dict[str, Any]:
    """A record as the debug stream sends it, with what it says in words."""
    return record_json(record) | {"words": sentence(record)}


def _split(
    base: StateManager, at: int, held: Sequence[Record], records_max: int
) -> tuple[StateManager, Sequence[Record]]:
    later = [record for record in held if record.seq > at]
    cut = max(len(later) - records_max, 0)
    for record in later[:cut]:
        base.apply(record.actor, record.event)
    return base, later[cut:]


def _plain(states: StateManager) -> dict[str, Any]:
    books = states.broker()
    return {
        "instances": [_instance(state) for state in states.instances()],
        "devices": [_device(books, device) for device in books.devices],
        "leases": [
            {
                "model": lease.model,
                "lease": lease.lease,
                "bytes": lease.bytes,
                "devices": list(lease.devices),
                "state": lease.state,
            }
            for lease in books.leases.values()
        ],
        "copies": dict(books.copies),
    }


def _instance(s: State) -> dict[str, Any]:
    return {
        "model": s.model,
        "phase": s.phase.value,
        "since": s.since,
        "level": s.level,
        "waiting": list(s.waiting),
        "serving": list(s.serving),
    }


def _device(books: BrokerState, device: str) -> dict[str, Any]:
    d = books.devices[device]
    return {
        "device": d.id,
        "kind": d.kind,
        "total_bytes": d.total_bytes,
        "free_bytes": d.free_measured,
        "shared_bytes": d.shared_bytes,
        "used_by": dict(d.used_by),
        "unreturned": dict(d.unreturned),
    }
