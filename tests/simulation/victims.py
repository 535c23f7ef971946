"""The laws of victims and of grants, held to whatever any policy brings about."""

from typing import Any

from vllama.actors.core import broker
from vllama.actors.core.books import Key, Lease
from vllama.actors.core.broker_events import EvictionOrdered, LeaseBooked
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.messages import BrokerMessage, Tick
from vllama.actors.core.planning import BrokerDecision

LOOKS_MAX = 5


class Watched:
    """The broker's core. Nobody goes who is pinned, awake or asleep, or coming up; nobody drains before `busy_grace_s`, or where
    idle ones do. What is granted is there beside what others hold, vllama's own helpers too; and no sleeper waits for its wake
    where nobody else is there and a start would be granted."""

    evolve = staticmethod(broker.evolve)

    def __init__(self, world: Any) -> None:
        self._world = world
        self._stuck: dict[Key, int] = {}  # ticks at which a sleeper waited for nobody

    def decide(self, s: BrokerState, m: BrokerMessage, now: float) -> BrokerDecision:
        decision = broker.decide(s, m, now)
        if isinstance(m, Tick):
            self._check_waits(s, now)
        for event in decision[0]:
            if isinstance(event, EvictionOrdered):
                self._check(s, event, now)
            elif isinstance(event, LeaseBooked):
                self._check_grant(s, event)
        return decision

    def _check(self, s: BrokerState, e: EvictionOrdered, now: float) -> None:
        going, wanted = s.leases[e.model, e.lease], s.leases[e.wanted_by, e.wanted_lease]
        if e.model == e.wanted_by:
            room = min(s.devices[d].total_bytes - s.devices[d].shared_bytes for d in wanted.devices)
            most = room if min(wanted.bytes, wanted.launched_bytes) > room else self._left(s, wanted)
            if going.state != "residue" or wanted.fresh or wanted.weights_bytes > most:
                self._world.broken(f"{e} stops a sleeper, and {wanted} finds no room to start")
            return
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

    def _check_grant(self, s: BrokerState, e: LeaseBooked) -> None:
        for device in e.devices:
            others = sum(ls.bytes for ls in s.on(device) if ls.model != e.model or ls.state == "returning")
            found = s.devices[device]
            taken = others + sum(found.unreturned.values()) + found.shared_bytes
            if e.bytes and taken + e.bytes > found.total_bytes:
                self._world.broken(f"{e} is granted beside {taken} bytes of {found}")

    def _check_waits(self, s: BrokerState, now: float) -> None:
        """No sleeper waits for long where nobody else holds anything, or waits, and a start would be granted."""
        for key, lease in s.shelves.waiting.items():
            alone = len(s.shelves.waiting) == 1 and not self._hindered(s, lease)
            patient = now - lease.asked_at <= s.policy.busy_grace_s
            if lease.fresh or patient or not alone or lease.weights_bytes > self._left(s, lease):
                self._stuck.pop(key, None)
                continue
            self._stuck[key] = self._stuck.get(key, 0) + 1
            if self._stuck[key] > LOOKS_MAX and not self._world.faults.host_down:
                self._world.broken(f"{lease} waits for nobody")

    def _hindered(self, s: BrokerState, lease: Lease) -> bool:
        there = [ls for device in lease.devices for ls in s.on(device)]
        return any(ls.evicting or (ls.model != lease.model and not ls.pinned) for ls in there)

    def _left(self, s: BrokerState, lease: Lease) -> int:
        """What a lease of this model could have now of its devices, its sleeper gone."""
        own = s.residue_of(lease.model)
        return min(s.free_bytes(device) for device in lease.devices) + (own.bytes if own else 0)
