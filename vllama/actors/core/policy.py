"""What the broker asks before it acts: who is next, who goes, how deep. A rule is pure: the same books give the same answer.

The broker keeps the law, whatever the rule: it shows a rule only whom the rule may name. The pinned and those that are coming
up are never shown; busy ones only after `busy_grace_s`, and only where all idle ones and sleepers together would not do.
"""

from collections.abc import Sequence
from typing import Protocol

from vllama.actors.core.broker_state import BrokerState, Lease
from vllama.actors.core.eviction import Holder, busy_victim, victims


class Rule(Protocol):
    """One policy. `lease` is the one that waits."""

    def order(self, s: BrokerState, waiting: list[Lease], now: float) -> list[Lease]:
        """Who waits, the next one first. Given are the first few of those who wait for the same devices: who has waited
        `max_wait_s`, then by priority, then first come. Between priorities the broker has the last word."""
        ...

    def victims(
        self,
        s: BrokerState,
        lease: Lease,
        idle: Sequence[Holder],
        asleep: Sequence[Holder],
        busy: Sequence[Holder],
        short: int,
        now: float,
    ) -> list[Holder]:
        """Who of the idle and the sleepers goes, each to its `level`; nobody: not yet. The busy ones are there to wait for."""
        ...

    def busy_victim(self, s: BrokerState, lease: Lease, busy: Sequence[Holder], now: float) -> Holder | None:
        """Who drains; None: not yet."""
        ...

    def spares(self, s: BrokerState, lease: Lease, holder: Lease, now: float, *, nobody: bool) -> str:
        """Why this one stays (`nobody`: as all do), in words; "": for no reason of the policy's own."""
        ...


class Lru:
    """The specification's: first come, least recently used; sleepers only where nobody is up. No wait is weighed."""

    def order(self, s: BrokerState, waiting: list[Lease], now: float) -> list[Lease]:
        return waiting

    def victims(
        self,
        s: BrokerState,
        lease: Lease,
        idle: Sequence[Holder],
        asleep: Sequence[Holder],
        busy: Sequence[Holder],
        short: int,
        now: float,
    ) -> list[Holder]:
        return victims(idle, short) or victims(asleep, short)

    def busy_victim(self, s: BrokerState, lease: Lease, busy: Sequence[Holder], now: float) -> Holder | None:
        return busy_victim(busy)

    def spares(self, s: BrokerState, lease: Lease, holder: Lease, now: float, *, nobody: bool) -> str:
        return ""
