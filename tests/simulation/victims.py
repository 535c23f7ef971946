"""The law of victims, held to every eviction that any policy brings about."""

from typing import Any

from vllama.actors.core import broker
from vllama.actors.core.broker_events import EvictionOrdered
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.messages import BrokerMessage
from vllama.actors.core.planning import BrokerDecision


class Watched:
    """The broker's core. Nobody goes who is pinned, awake or asleep, or coming up; nobody drains before `busy_grace_s`, or where
    idle ones do."""

    evolve = staticmethod(broker.evolve)

    def __init__(self, world: Any) -> None:
        self._world = world

    def decide(self, s: BrokerState, m: BrokerMessage, now: float) -> BrokerDecision:
        decision = broker.decide(s, m, now)
        for event in decision[0]:
            if isinstance(event, EvictionOrdered):
                self._check(s, event, now)
        return decision

    def _check(self, s: BrokerState, e: EvictionOrdered, now: float) -> None:
        going, wanted = s.leases[e.model, e.lease], s.leases[e.wanted_by, e.wanted_lease]
        if going.state != "held":
            if going.state != "residue" or going.pinned:
                self._world.broken(f"{e} names {going}")
            return
        if going.pinned or not going.answered or going.in_flight < 0:
            self._world.broken(f"{e} names {going}, which is pinned or coming up")
        if going.in_flight == 0:
            return
        if now - wanted.asked_at < s.policy.busy_grace_s:
            self._world.broken(
                f"{e} names {going}, and {wanted} waits only since {wanted.asked_at}, now {now}"
            )
        idle = [
            ls
            for ls in s.on(e.device)
            if ls.state == "held" and not ls.evicting and not ls.pinned and ls.answered and ls.in_flight == 0
        ]
        if sum(ls.bytes for ls in idle) >= e.short_bytes:
            self._world.broken(f"{e} names {going}, where {idle} would do")
