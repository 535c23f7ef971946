"""No policy can name whom it may not: a rule that names anybody at random is held by the broker."""

import random
from collections.abc import Sequence

import pytest

from tests.simulation.world import World
from vllama.actors.core import granting
from vllama.actors.core.broker_state import BrokerState, Lease
from vllama.actors.core.eviction import Holder
from vllama.actors.core.rules import RULES


class Wild:
    """Names whom it likes, shown to it or not, at any level, in any order."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def order(self, s: BrokerState, waiting: list[Lease], now: float) -> list[Lease]:
        return self.rng.sample(waiting, len(waiting))

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
        anybody = [*self._anybody(s), *idle, *asleep, *busy]
        return self.rng.sample(anybody, self.rng.randrange(len(anybody) + 1))

    def busy_victim(self, s: BrokerState, lease: Lease, busy: Sequence[Holder], now: float) -> Holder | None:
        return self.rng.choice([None, *self._anybody(s), *busy])

    def spares(self, s: BrokerState, lease: Lease, holder: Lease, now: float, *, nobody: bool) -> str:
        return ""

    def _anybody(self, s: BrokerState) -> list[Holder]:
        return [
            Holder(ls.model, ls.lease, ls.bytes, ls.last_used, ls.in_flight, self.rng.choice((1, 2, 3)))
            for ls in s.leases.values()
        ]


@pytest.mark.parametrize("part", range(2))
def test_a_rule_that_names_anybody_is_held(
    histories: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(part, histories // 2, 2):
        monkeypatch.setitem(RULES, "wild", Wild(seed))
        World(seed, policy="wild").run()


def test_the_law_is_seen_to_be_broken_where_the_broker_does_not_hold_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(granting, "_only", lambda _, named: named)

    def histories() -> None:
        for seed in range(200):
            monkeypatch.setitem(RULES, "wild", Wild(seed))
            World(seed, policy="wild").run()

    with pytest.raises((AssertionError, KeyError)):
        histories()
