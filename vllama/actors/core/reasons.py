"""Who was spared when room was sought, and why: what the journal tells `explain`. Pure; at most REASONS_MAX are named."""

from collections.abc import Callable, Collection, Iterable
from itertools import islice

from vllama.actors.core.broker_state import Key, Lease

REASONS_MAX = 8  # holders named in one event; the others are counted
SOUGHT_MAX = 16  # different situations recorded for one wait; then it waits in silence

Spared = tuple[tuple[str, str, int], ...]  # model, why, requests in flight


def spared(
    holders: Iterable[Lease], count: int, going: Collection[Key], own: Callable[[Lease], str]
) -> tuple[Spared, int]:
    """The holders that stay, each with its reason (`own`: the policy's), and how many more there are; `count` is how many there
    are in all."""
    staying = (ls for ls in holders if (ls.model, ls.lease) not in going)
    named = tuple((ls.model, _why(ls, own), max(ls.in_flight, 0)) for ls in islice(staying, REASONS_MAX))
    return named, count - len(going) - len(named)


def _why(lease: Lease, own: Callable[[Lease], str]) -> str:
    if lease.evicting:
        return "going"
    if lease.state == "residue":
        return "pinned" if lease.pinned else own(lease) or "asleep"
    if lease.in_flight < 0:
        return "coming up"
    if lease.pinned:
        return "pinned"
    return own(lease) or ("busy" if lease.in_flight else "not needed")


def situation(device: str, named: Spared) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What makes one moment of a wait different from another: not how many requests are in flight."""
    return device, tuple((model, why) for model, why, _ in named)
