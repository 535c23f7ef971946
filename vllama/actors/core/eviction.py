"""Whom to evict: a pure rule over what the broker knows. Never logs, never decides whether to."""

from collections.abc import Iterable
from typing import NamedTuple


class Holder(NamedTuple):
    """A lease that may be evicted: `bytes` is what it would give back of the device in question."""

    model: str
    lease: int
    bytes: int
    last_used: float
    in_flight: int
    level: int
    priority: int = 0
    weighed: tuple[
        float, ...
    ] = ()  # visits to be expected, seconds to come back, seconds to go: why it was chosen


def victims(holders: Iterable[Holder], short_bytes: int) -> list[Holder]:
    """The idle holders to evict, the lowest priority first and of these the least recently used, until `short_bytes` are covered
    (or all of them)."""
    chosen: list[Holder] = []
    for holder in sorted((h for h in holders if h.in_flight == 0), key=_lru):
        if short_bytes <= 0:
            break
        chosen.append(holder)
        short_bytes -= holder.bytes
    return chosen


def busy_victim(holders: Iterable[Holder]) -> Holder | None:
    """The least recently used of the busy ones, of the lowest priority."""
    return min((h for h in holders if h.in_flight > 0), key=_lru, default=None)


def _lru(holder: Holder) -> tuple[int, float, str]:
    return holder.priority, holder.last_used, holder.model
