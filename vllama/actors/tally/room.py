"""What the broker's records add to the numbers: evictions and leases."""

from collections.abc import Callable
from typing import Any

from vllama.actors.core import broker_events as bk
from vllama.actors.core.messages import Phase
from vllama.actors.tally.numbers import Numbers


def _evicted(n: Numbers, _: str, e: bk.EvictionOrdered, __: float) -> None:
    """`reason`: what made it the one to go. It was idle; it was busy and its grace was over; or it slept and its residue was
    in the way."""
    phase, _since = n.phases.get(e.model, (Phase.STOPPED, 0.0))
    flying = next((flying for model, _used, flying in e.considered if model == e.model), 0)
    reason = "asleep" if phase is Phase.ASLEEP else "busy" if flying > 0 else "idle"
    n.evictions[e.model, reason] += 1
    n.caused[e.wanted_by] += 1


def _cancelled(n: Numbers, _: str, e: bk.EvictionCancelled, __: float) -> None:
    n.cancelled[e.model] += 1


def _lease(outcome: str) -> Callable[[Numbers, str, Any, float], None]:
    def count(n: Numbers, _: str, __: Any, ___: float) -> None:
        n.leases[outcome] += 1

    return count


RULES: dict[type, Callable[[Numbers, str, Any, float], None]] = {
    bk.EvictionOrdered: _evicted,
    bk.EvictionCancelled: _cancelled,
    bk.LeaseQueued: _lease("asked"),
    bk.LeaseBooked: _lease("granted"),
    bk.LeaseDenied: _lease("refused"),
    bk.LeaseWithdrawn: _lease("withdrawn"),
    bk.LeaseFreed: _lease("returned"),
}
