"""What the broker's records add: who was short of memory, who went for whom, who stood in the way."""

from collections.abc import Callable
from typing import Any

from vllama.actors.core import broker_events as bk
from vllama.actors.explain.episodes import NAMES_MAX, Eviction, Sought
from vllama.actors.explain.ledger import Ledger


def _lease_queued(r: Ledger, _: str, e: bk.LeaseQueued, __: float) -> None:
    found = r.open.get(e.model)
    if found is not None:
        found.wait.priority = e.priority
        found.wait.behind = tuple(dict.fromkeys(model for model, _ in r.queue if model != e.model))[
            :NAMES_MAX
        ]
    r.queue[e.model, e.lease] = None


def _prioritized(r: Ledger, _: str, e: bk.LeasePrioritized, __: float) -> None:
    found = r.open.get(e.model)
    if found is not None and (e.model, e.lease) in r.queue:
        found.wait.priority = e.priority


def _lease_booked(r: Ledger, _: str, e: bk.LeaseBooked, __: float) -> None:
    r.queue.pop((e.model, e.lease), None)
    r.leases[e.model, e.lease] = e.bytes


def _lease_over(r: Ledger, _: str, e: bk.LeaseDenied | bk.LeaseWithdrawn, __: float) -> None:
    r.queue.pop((e.model, e.lease), None)


def _evicted(r: Ledger, _: str, e: bk.EvictionOrdered, at: float) -> None:
    use = next(((used, flying) for model, used, flying in e.considered if model == e.model), None)
    idle_s = at - use[0] if use is not None and use[0] and not use[1] else None
    eviction = Eviction(
        at, e.model, e.lease, e.level, e.wanted_by, e.device, e.short_bytes, idle_s, use[1] if use else 0,
        e.spared, e.left_out, e.weighed,
    )  # fmt: skip
    r.evictions[e.model, e.lease] = eviction
    r.episodes.append(eviction)
    found = r.open.get(e.wanted_by)
    if found is not None:
        found.wait.evictions.append(eviction)


def _cancelled(r: Ledger, _: str, e: bk.EvictionCancelled, __: float) -> None:
    eviction = r.evictions.pop((e.model, e.lease), None)
    if eviction is not None:
        eviction.outcome = "cancelled"


def _returning(r: Ledger, _: str, e: bk.LeaseReturning, __: float) -> None:
    eviction = r.evictions.get((e.model, e.lease))
    if eviction is not None:
        eviction.outcome = "slept" if e.residue_bytes else "stopped"


def _freed(r: Ledger, _: str, e: bk.LeaseFreed, at: float) -> None:
    booked = r.leases.get((e.model, e.lease))
    eviction = r.evictions.pop((e.model, e.lease), None)
    if eviction is not None:
        eviction.took_s = at - eviction.at
        if booked is not None:
            eviction.freed_bytes = max(booked - e.residue_bytes - e.unreturned_bytes, 0)
    if e.residue_bytes:
        r.leases[e.model, e.lease] = e.residue_bytes
    else:
        r.leases.pop((e.model, e.lease), None)


def _nobody_can_go(r: Ledger, _: str, e: bk.RoomSought, at: float) -> None:
    found = r.open.get(e.model)
    if found is not None:
        found.wait.sought.append(Sought(at, e.device, e.short_bytes, e.spared, e.left_out))


def _slot_queued(r: Ledger, _: str, e: bk.SlotQueued, __: float) -> None:
    r.slots[e.model, e.slot] = e.devices
    found = r.open.get(e.model)
    if found is not None and e.transition != "down":
        moving = (model for (model, _), devices in r.moving.items() if not set(devices).isdisjoint(e.devices))
        found.wait.turns = tuple(dict.fromkeys(model for model in moving if model != e.model))[:NAMES_MAX]


def _slot_booked(r: Ledger, _: str, e: bk.SlotBooked, __: float) -> None:
    r.moving[e.model, e.slot] = r.slots.get((e.model, e.slot), ())


def _slot_freed(r: Ledger, _: str, e: bk.SlotFreed, __: float) -> None:
    r.slots.pop((e.model, e.slot), None)
    r.moving.pop((e.model, e.slot), None)


RULES: dict[type, Callable[[Ledger, str, Any, float], None]] = {
    bk.LeaseQueued: _lease_queued,
    bk.LeasePrioritized: _prioritized,
    bk.LeaseBooked: _lease_booked,
    bk.LeaseDenied: _lease_over,
    bk.LeaseWithdrawn: _lease_over,
    bk.EvictionOrdered: _evicted,
    bk.EvictionCancelled: _cancelled,
    bk.LeaseReturning: _returning,
    bk.LeaseFreed: _freed,
    bk.RoomSought: _nobody_can_go,
    bk.SlotQueued: _slot_queued,
    bk.SlotBooked: _slot_booked,
    bk.SlotFreed: _slot_freed,
}
