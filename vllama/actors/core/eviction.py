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


def victims(holders: Iterable[Holder], short_bytes: int) -> list[Holder]:
    """The idle holders to evict, least recently used first, until `short_bytes` are covered (or all of them)."""
    chosen: list[Holder] = []
    for holder in sorted((h for h in holders if h.in_flight == 0), key=_lru):
        if short_bytes <= 0:
            break
        chosen.append(holder)
        short_bytes -= holder.bytes
    return chosen


def busy_victim(holders: Iterable[Holder]) -> Holder | None:
    """The least recently used of the busy ones."""
    return min((h for h in holders if h.in_flight > 0), key=_lru, default=None)


def _lru(holder: Holder) -> tuple[float, str]:
    return holder.last_used, holder.model
