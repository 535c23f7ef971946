"""The policy `cost`: who goes is whom it costs the least to be without, for the memory that comes of it.

To be without a model costs what its next visit will wait for it (measured: its wake from that level, or its start), as often as
it is visited, and what its way down takes now. design/scheduling.md has the reasons and the figures.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vllama.actors.core import demand, prices
from vllama.actors.core.broker_state import BrokerState, Lease
from vllama.actors.core.eviction import Holder
from vllama.actors.core.known import Known

HORIZON_S = 300.0  # for so long a victim is thought to be away when its visits are counted
QUANTUM = 4.0  # a busy engine serves for so many switches before it drains for another
RESIDENCY = 1.0  # and an idle one stays for so many, if it is likely to be asked for within them
WORTH_S = 5.0  # for one who is busy to become idle
LIKELY = 1.0  # visits that are expected within a switch: above that an idle moment is no end

DEAR = "asleep: its start would take longer than to wait for one that is up"
IN_TURN = "its turn is not over"
JUST_UP = "it came up a moment ago and is asked for again and again"


class Choice(NamedTuple):
    """One holder at one level: what it costs, what it frees."""

    holder: Holder
    cost_s: float
    frees: int
    stops: bool = False


class Cost:
    """Whole models by what they cost."""

    def order(self, s: BrokerState, waiting: list[Lease], now: float) -> list[Lease]:
        """After `max_wait_s`, who has waited longest; before, of the same priority, who is up soonest for the most who wait."""
        return sorted(waiting, key=lambda lease: self._turn(s, lease, now))

    def _turn(self, s: BrokerState, lease: Lease, now: float) -> tuple[int, float, float]:
        waited = now - lease.asked_at
        if waited >= s.policy.max_wait_s:
            return 0, 0.0, lease.asked_at
        known = _known(s, lease.model)
        up_s = prices.up_s(known, self._level_of(s, lease), lease.weights_bytes)
        visits = 1 + demand.rate(known.visits, 0.0) * waited
        return 1, -lease.priority, up_s / visits

    def _level_of(self, s: BrokerState, lease: Lease) -> int:
        """From which level it comes up."""
        if lease.fresh:
            return 3
        return 1 if lease.model in s.copies else 2

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
        overdue = now - lease.asked_at >= s.policy.max_wait_s
        others = sum(self.rate(s, h.model, now) for h in asleep)
        may = [h for h in idle if overdue or not self._stays(s, lease, h, now)]
        choices = [c for h in may for c in self._ways(s, h, now)]
        choices += [self._stopped(s, h, others, now) for h in asleep]
        chosen = cheapest(choices, short)
        if not chosen and (overdue or (len(may) == len(idle) and not busy and _quiet(s, [*idle, *asleep]))):
            return list(_whole(choices, short))
        if asleep and busy and not overdue and any(c.stops for c in chosen):
            later = [c for h in (*idle, *busy) for c in self._ways(s, h, now, WORTH_S) if not c.stops]
            if total(cheapest([*choices, *later], short)) < total(chosen):
                return []  # one that is up now goes for less once it is idle
        return [c.holder for c in chosen]

    def busy_victim(self, s: BrokerState, lease: Lease, busy: Sequence[Holder], now: float) -> Holder | None:
        overdue = now - lease.asked_at >= s.policy.max_wait_s
        done = [h for h in busy if overdue or self._served(s, lease, h, now)]
        longest = min(done, key=lambda h: (_known(s, h.model).up_at, h.model), default=None)
        return None if longest is None else cheapest_way(self._ways(s, longest, now)).holder

    def spares(self, s: BrokerState, lease: Lease, holder: Lease, now: float, *, nobody: bool) -> str:
        if holder.state == "residue":
            return DEAR if nobody else ""
        one = Holder(
            holder.model, holder.lease, holder.bytes, holder.last_used, holder.in_flight, holder.level
        )
        if holder.in_flight:
            return "" if self._served(s, lease, one, now) else IN_TURN
        return JUST_UP if self._stays(s, lease, one, now) else ""

    # --- how long who is up may stay ----------------------------------------------------------------------------------

    def _switch_s(self, s: BrokerState, lease: Lease, holder: Holder) -> float:
        """From the one to the other: down and up."""
        out, into = _known(s, holder.model), _known(s, lease.model)
        up_s = prices.up_s(into, self._level_of(s, lease), lease.weights_bytes)
        return prices.down_s(out, holder.level, out.weights_bytes) + up_s

    def _stays(self, s: BrokerState, lease: Lease, holder: Holder, now: float) -> bool:
        """It came up a moment ago, and is likely to be asked for again before a switch would be over."""
        known = _known(s, holder.model)
        switch_s = self._switch_s(s, lease, holder)
        if now - known.up_at >= RESIDENCY * switch_s:
            return False
        return self.rate(s, holder.model, now) * switch_s >= LIKELY

    def _served(self, s: BrokerState, lease: Lease, holder: Holder, now: float) -> bool:
        """Its quantum is over."""
        return now - _known(s, holder.model).up_at >= QUANTUM * self._switch_s(s, lease, holder)

    # --- what it costs ------------------------------------------------------------------------------------------------

    def rate(self, s: BrokerState, model: str, now: float) -> float:
        """Visits a second that are to be expected."""
        known = _known(s, model)
        return demand.rate(known.visits, now - known.visited_at)

    def _ways(self, s: BrokerState, holder: Holder, now: float, more_s: float = 0.0) -> list[Choice]:
        """The levels to which one that is up may go."""
        known = _known(s, holder.model)
        visits = self.rate(s, holder.model, now) * HORIZON_S
        ways = []
        for level in known.levels or (holder.level,):
            if level == 1 and not self._room(s, holder.model, known):
                continue
            down_s = prices.down_s(known, level, known.weights_bytes)
            if level == 1 and holder.model not in s.copies:
                down_s += prices.pin_s(known, known.weights_bytes) / (1 + known.rises)
            up_s = prices.up_s(known, level, known.weights_bytes)
            frees = holder.bytes - (known.residue_bytes if level < 3 else 0)
            cost_s = more_s + down_s + visits * up_s
            weighed = _rounded(visits, up_s, down_s)
            ways.append(
                Choice(holder._replace(level=level, weighed=weighed), cost_s, max(frees, 1), level == 3)
            )
        best = min((c for c in ways if c.holder.level < 3), key=lambda c: c.cost_s, default=None)
        return [c for c in ways if c is best or c.holder.level == 3]

    def _room(self, s: BrokerState, model: str, known: Known) -> bool:
        """Host RAM for its weights is there, or its own already."""
        return model in s.copies or s.copies_bytes() + known.copy_bytes <= s.policy.sleep_ram_max_bytes

    def _stopped(self, s: BrokerState, holder: Holder, others: float, now: float) -> Choice:
        """A sleeper whose residue is in the way: its next visit is a start, where it would have been a wake, and all who come for
        the same devices meanwhile (`others` a second) wait for it too."""
        known = _known(s, holder.model)
        level = 1 if holder.model in s.copies else 2
        up_s = prices.up_s(known, 3, known.weights_bytes)
        more_s = up_s - prices.up_s(known, level, known.weights_bytes)
        visits = self.rate(s, holder.model, now) * HORIZON_S
        down_s = prices.down_s(known, 3, known.weights_bytes)
        more_s *= 1 + others * more_s / 2
        one = holder._replace(weighed=_rounded(visits, up_s, down_s))
        return Choice(one, down_s + visits * max(more_s, 0.0), max(holder.bytes, 1), stops=True)


def _rounded(*values: float) -> tuple[float, ...]:
    """As they are told: the journal need not keep more."""
    return tuple(round(value, 3) for value in values)


def _quiet(s: BrokerState, holders: Sequence[Holder]) -> bool:
    """Nobody comes up or is on its way down where these are: nothing will change by itself."""
    devices = {d for h in holders if (ls := s.leases.get((h.model, h.lease))) for d in ls.devices}
    there = [ls for d in devices for ls in s.on(d)]
    return not any(
        ls.evicting or ls.state == "returning" or (ls.state == "held" and ls.in_flight < 0) for ls in there
    )


def _known(s: BrokerState, model: str) -> Known:
    return s.known.get(model) or Known()


def cheapest_way(ways: Sequence[Choice]) -> Choice:
    return min(ways, key=lambda c: c.cost_s)


def total(chosen: Sequence[Choice]) -> float:
    return sum(c.cost_s for c in chosen)


def cheapest(choices: Sequence[Choice], short: int) -> list[Choice]:
    """Whose memory covers `short` at the least cost: one alone, or the cheapest by the byte without those that turn out not to
    be needed; nobody, if all together would not do."""
    chosen: list[Choice] = []
    missing = short
    for choice in by_the_byte(choices):
        if missing <= 0:
            break
        chosen.append(choice)
        missing -= choice.frees
    if missing > 0:
        return []
    for choice in sorted(chosen, key=lambda c: -c.cost_s):
        if missing + choice.frees <= 0:
            chosen.remove(choice)
            missing += choice.frees
    alone = min((c for c in choices if c.frees >= short), key=lambda c: c.cost_s, default=None)
    if alone is not None and alone.cost_s < total(chosen):
        return [alone]
    return chosen


def _whole(choices: Sequence[Choice], short: int) -> Iterator[Holder]:
    """As if sleepers kept nothing: what turns out to be missing is sought when they are down."""
    for choice in by_the_byte(choices):
        if short > 0:
            yield choice.holder
        short -= choice.holder.bytes


def by_the_byte(choices: Sequence[Choice]) -> list[Choice]:
    """Each holder once, the least costly for what it frees first."""
    ways: dict[str, Choice] = {}
    for choice in sorted(choices, key=lambda c: (c.cost_s / c.frees, c.holder.last_used, c.holder.model)):
        ways.setdefault(choice.holder.model, choice)
    return list(ways.values())
