"""Grants and evictions: the part of the broker's plan that looks at who waits for memory.

Looked at are the first few of those who name the same devices (none: any), LOOK_MAX in all. A thousand who wait behind them
change nothing: only the first one of a device has anybody evicted, and whether somebody may overtake is seen by size.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from vllama.actors.core import broker_events as ev
from vllama.actors.core import effects as fx
from vllama.actors.core import reasons, refusals
from vllama.actors.core.books import Lease
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.eviction import Holder
from vllama.actors.core.messages import (
    Evict,
    LeaseGranted,
    LeaseRefused,
    Offer,
    Refusal,
    Replan,
    WatchUse,
)
from vllama.actors.core.places import Places, exceeds
from vllama.actors.core.rules import RULES
from vllama.actors.core.shelves import LATE, NOISE_BYTES, Entry, Shelf

BrokerDecision = tuple[list[ev.BrokerEvent], list[fx.BrokerEffect]]

VOID: BrokerDecision = ([], [])
AGAIN = fx.TellSelf(Replan())
LOOK_MAX, LOOK_MIN = 16, 2  # in all, and of each queue


def join(*decisions: BrokerDecision) -> BrokerDecision:
    """Several steps as one decision, in order."""
    return [e for events, _ in decisions for e in events], [f for _, effects in decisions for f in effects]


def who_is_first(s: BrokerState, now: float) -> list[Lease]:
    """The first of those who wait for the same devices: by priority, then first come; above all priorities those who have
    waited `max_wait_s`."""
    late_before = now - s.policy.max_wait_s
    queues = s.shelves.queues.values()
    each = max(LOOK_MAX // len(queues), LOOK_MIN)
    found: list[Entry] = []
    for queue in queues:
        found += queue.first(late_before, each)
    found.sort()
    return [lease for _, _, lease in found]


def ranked(s: BrokerState, now: float) -> list[Lease]:
    """The same, those of one priority as the policy has them."""
    late_before = now - s.policy.max_wait_s
    order = RULES[s.policy.policy].order(s, who_is_first(s, now), now)
    return sorted(order, key=lambda ls: LATE if ls.asked_at <= late_before else -ls.priority)


def _behind(s: BrokerState, places: Places, first: list[Lease], now: float) -> Iterator[Lease]:
    """Who else waits and may fit, in the same order; asked for only once somebody gets so far. Who has waited `max_wait_s` and
    does not fit is no loss: one of the first who waits for the same devices has waited longer."""
    late_before = now - s.policy.max_wait_s
    most = places.most_free()
    seen = {(lease.model, lease.lease) for lease in first}
    entries = chain.from_iterable(s.shelves.queues.values())
    rest = sorted(
        (LATE if lease.asked_at <= late_before else urgency, number, lease)
        for urgency, number, lease in entries
        if (most is None or lease.bytes <= most or not lease.fresh) and (lease.model, lease.lease) not in seen
    )
    for _, _, lease in rest:
        yield lease


def _falling(s: BrokerState, lease: Lease) -> bool:
    """Its sleeper's old lease is still on its way back: the residue is not known yet."""
    mine = s.shelves.of_model[lease.model].values()
    return any(ls.state == "returning" and ls.residue_bytes for ls in mine)


def grant(s: BrokerState, places: Places, waiting: list[Lease], now: float) -> BrokerDecision:
    """The first waiter whose whole need is free; nobody overtakes a waiter on its devices after `max_wait_s`."""
    reserved: set[str] = set()
    if not places.some_fit(reserved):
        return VOID
    late_before = now - s.policy.max_wait_s
    out = _kept_out(places, waiting)
    for lease in chain(waiting, _behind(s, places, waiting, now)):
        held_up = (
            _falling(s, lease)
            or s.must_squeeze(lease)
            or _is_kept_out(out, lease)
            or places.is_outgrown(lease)
        )
        devices = None if held_up else places.fit(lease, reserved)
        if devices is not None:
            rooms = (s.devices[d].total_bytes - s.devices[d].shared_bytes for d in devices)
            return _book(lease, max(min(lease.bytes, *rooms), 0), devices)
        if lease.asked_at <= late_before and not reserved.issuperset(lease.devices or s.devices):
            reserved.update(lease.devices or s.devices)
            if not places.some_fit(reserved):
                return VOID
    return VOID


def _book(lease: Lease, size: int, devices: tuple[str, ...]) -> BrokerDecision:
    booked = ev.LeaseBooked(lease.model, lease.lease, size, devices)
    return [booked], [fx.TellInstance(lease.model, LeaseGranted(lease.lease, size, devices))]


def make_room(s: BrokerState, places: Places, waiting: list[Lease], now: float) -> BrokerDecision:
    """Evict for the first waiter of each device; those behind it take what comes free."""
    claimed: set[str] = set()
    decisions: list[BrokerDecision] = []
    out = _kept_out(places, waiting)
    for lease in waiting:
        if len(claimed) >= len(s.devices):
            break
        if _is_kept_out(out, lease):
            continue
        devices = places.best(lease)
        if claimed.isdisjoint(devices) and not _falling(s, lease):
            decisions.append(_room_for(s, places, lease, devices, now))
        claimed.update(devices)
    return join(*decisions)


def _kept_out(places: Places, waiting: list[Lease]) -> dict[str, int]:
    """Who went for one that still waits, and whose room is all there or on its way, does not come back into that room: else the
    two would change places for nothing until `max_wait_s`, whenever the one that went is up sooner. By model, the priority up to
    which that holds: who is more urgent comes all the same."""
    found: dict[str, int] = {}
    for lease in waiting:
        if lease.cleared and places.is_coming(lease):
            for model in lease.cleared:
                found[model] = max(found.get(model, lease.priority), lease.priority)
    return found


def _is_kept_out(out: dict[str, int], lease: Lease) -> bool:
    return lease.model in out and lease.priority <= out[lease.model]


def _room_for(
    s: BrokerState, places: Places, lease: Lease, devices: tuple[str, ...], now: float
) -> BrokerDecision:
    """The next thing to do so that this lease fits on these devices; with nothing left to go on any, all that is free."""
    tightest = min(lease.devices, key=places.room) if lease.devices else max(s.devices, key=places.room)
    if lease.weights_bytes > places.room(tightest):
        return _never(s, lease, tightest)
    if places.is_outgrown(lease):
        return _start_afresh(s, places, lease, devices, now)
    if lease.squeeze and lease.squeezed is None:
        needy = dict.fromkeys(devices, 1)
    else:
        short = {device: places.short(lease, device) for device in devices}
        needy = {device: size for device, size in short.items() if size > 0}
    for device, size in needy.items():
        decision = _evict_on(s, places, lease, device, size, now)
        if decision != VOID:
            return decision
    if not needy or not all(_alone(s, lease, device) for device in needy):
        return VOID
    if lease.squeeze:
        return deny(s, lease, now, exhausted=True)
    size = places.most(lease, devices)
    if lease.weights_bytes > size:
        return VOID
    if exceeds(lease, size):  # outsiders and the pinned may yet make room, and a wake is sooner than a start
        patient = now - lease.asked_at < s.policy.busy_grace_s
        return VOID if patient else _start_afresh(s, places, lease, devices, now)
    events, effects = _book(lease, min(size, lease.bytes), devices)
    return events, [*effects, AGAIN]


def _start_afresh(
    s: BrokerState, places: Places, lease: Lease, devices: tuple[str, ...], now: float
) -> BrokerDecision:
    """A sleeper that cannot be woken within what there is: it is stopped, and what waits for it becomes a start."""
    own = s.shelves.residue_of(lease.model)
    if own is None or own.evicting:
        return VOID
    device = max(devices, key=lambda d: places.short(lease, d))
    short = max(lease.bytes - places.most(lease, (device,)), 0)
    ordered = ev.EvictionOrdered(own.model, own.lease, 3, lease.model, short, (), now, lease.lease, device)
    return [ordered], [fx.TellInstance(own.model, Evict(own.lease, 3))]


def _alone(s: BrokerState, lease: Lease, device: str) -> bool:
    """Nothing is left to go on this device, or on its way back: the pinned do not count."""
    shelf = s.shelves.on(device)
    asleep = any(ls.model != lease.model and not ls.pinned for ls in shelf.residue.values())
    held = shelf.held.values()
    return not asleep and all(ls.pinned and ls.in_flight >= 0 for ls in held) and not shelf.coming_bytes


def _own(s: BrokerState, lease: Lease, shelf: Shelf) -> list[Lease]:
    """What the waiter's own model holds there already."""
    mine = s.shelves.of_model[lease.model].items()
    return [ls for key, ls in mine if key in shelf.held or key in shelf.residue]


def _evict_on(
    s: BrokerState, places: Places, lease: Lease, device: str, short: int, now: float
) -> BrokerDecision:
    shelf = s.shelves.on(device)
    held = [ls for ls in shelf.held.values() if not ls.evicting]
    unasked = [ls for ls in held if not ls.offered]
    if unasked:
        offers: list[fx.BrokerEffect] = []
        for ls in unasked:
            offers.append(fx.TellInstance(ls.model, WatchUse(ls.lease, on=True)))
            offers.append(fx.TellInstance(ls.model, Offer(ls.lease)))
        return [ev.OfferMade(ls.model, ls.lease) for ls in unasked], offers
    if any(not ls.answered for ls in held):
        return VOID
    awake = [_holder(ls) for ls in held if not ls.pinned and ls.in_flight >= 0]
    idle = [h for h in awake if h.in_flight == 0]
    enough = sum(h.bytes for h in idle) + places.asleep_bytes(lease, device) >= short
    asleep: list[Holder] = []
    if enough or all(ls.pinned for ls in shelf.held.values()):
        asleep = [
            Holder(ls.model, ls.lease, ls.bytes, ls.last_used, 0, 3, ls.priority)
            for ls in shelf.residue.values()
            if not (ls.evicting or ls.pinned) and ls.model != lease.model
        ]  # else to stop every sleeper would not do: they are left for when nobody is up, or coming up
    chosen = _chosen(s, lease, (awake, idle, asleep), short, now, enough=enough)
    going = {(h.model, h.lease) for h in chosen}
    others = (ls for ls in chain(shelf.held.values(), shelf.residue.values()) if ls.model != lease.model)
    count = len(shelf.held) + len(shelf.residue) - len(_own(s, lease, shelf))
    rule = RULES[s.policy.policy]
    named, left_out = reasons.spared(
        others, count, going, lambda ls: rule.spares(s, lease, ls, now, nobody=not chosen)
    )
    if chosen:
        looked_at = islice((*awake, *asleep), reasons.REASONS_MAX)
        considered = tuple((h.model, h.last_used, h.in_flight) for h in looked_at)
        why = (lease.model, short, considered, now, lease.lease, device, named, left_out)
        events = [ev.EvictionOrdered(h.model, h.lease, h.level, *why, h.weighed) for h in chosen]
        return list(events), [fx.TellInstance(h.model, Evict(h.lease, h.level)) for h in chosen]
    seen = lease.sought
    if len(seen) >= reasons.SOUGHT_MAX or reasons.situation(device, named) in seen:
        return VOID
    return [ev.RoomSought(lease.model, lease.lease, device, short, named, left_out, now)], [AGAIN]


def _chosen(
    s: BrokerState,
    lease: Lease,
    holders: tuple[list[Holder], list[Holder], list[Holder]],
    short: int,
    now: float,
    *,
    enough: bool,
) -> list[Holder]:
    """Whom the policy names of those whom it may name (`enough`: the idle and the sleepers together would do). A policy that
    spares the sleepers may have a busy one drain, unless the idle ones alone would do."""
    awake, idle, asleep = holders
    rule = RULES[s.policy.policy]
    busy = [h for h in awake if h.in_flight > 0]
    shown = _least_urgent(idle, asleep, short)
    named = _only(chain(*shown), rule.victims(s, lease, *shown, busy, short, now))
    if named or now - lease.asked_at < s.policy.busy_grace_s:
        return named
    if enough and (not busy or sum(h.bytes for h in idle) >= short):
        return named
    least = min((h.priority for h in busy), default=0)
    may_drain = [h for h in busy if h.priority == least]
    chosen = rule.busy_victim(s, lease, may_drain, now)
    return _only(may_drain, [chosen] if chosen else [])


def _only(shown: Iterable[Holder], named: list[Holder]) -> list[Holder]:
    """Whom a policy names beyond those that it was shown is not heard of."""
    known = {(h.model, h.lease) for h in shown}
    return [h for h in named if (h.model, h.lease) in known]


def _least_urgent(idle: list[Holder], asleep: list[Holder], short: int) -> tuple[list[Holder], list[Holder]]:
    """Whoever has a higher priority goes later: only as many classes are shown as it takes, the lowest first."""
    classes = sorted({h.priority for h in chain(idle, asleep)})
    for highest in classes[:-1]:
        shown = [h for h in idle if h.priority <= highest], [h for h in asleep if h.priority <= highest]
        if sum(h.bytes for h in chain(*shown)) >= short:
            return shown
    return idle, asleep


def _holder(ls: Lease) -> Holder:
    return Holder(ls.model, ls.lease, ls.bytes, ls.last_used, ls.in_flight, ls.level, ls.priority)


def deny(s: BrokerState, lease: Lease, now: float, *, exhausted: bool = False) -> BrokerDecision:
    """No memory can be had: say what is needed, what is free and who holds the rest."""
    devices = lease.devices or tuple(s.devices)
    free = max((s.free_bytes(device) for device in devices), default=0)
    text = ", ".join(_holders(s, devices))
    refusal = refusals.no_memory(lease.model, lease.bytes, free, text, now - lease.asked_at)
    return _refused(lease, refusal, exhausted=exhausted)


def _never(s: BrokerState, lease: Lease, device: str) -> BrokerDecision:
    """Its weights are more than vllama's own helpers leave of the device."""
    found = s.devices[device]
    refusal = refusals.never_fits(
        lease.model, lease.weights_bytes, found.total_bytes, device, found.shared_bytes
    )
    return _refused(lease, refusal)


def _refused(lease: Lease, refusal: Refusal, *, exhausted: bool = False) -> BrokerDecision:
    told = fx.TellInstance(lease.model, LeaseRefused(lease.lease, refusal, exhausted))
    return [ev.LeaseDenied(lease.model, lease.lease, refusal)], [told]


def _holders(s: BrokerState, devices: tuple[str, ...]) -> Iterable[str]:
    seen: set[tuple[str, int]] = set()
    for device in devices:
        for ls in s.on(device):
            if (ls.model, ls.lease) not in seen:
                seen.add((ls.model, ls.lease))
                yield f"{ls.model} ({ls.state}, {refusals.human(ls.bytes)})"
        found = s.devices[device]
        for model, size in found.unreturned.items():
            yield f"{model} (unreturned, {refusals.human(size)})"
        if found.shared_bytes:
            yield f"vllama's zygote ({refusals.human(found.shared_bytes)})"
        if (others := found.unattributed_bytes - sum(found.unreturned.values())) > NOISE_BYTES:
            yield f"others on {device} ({refusals.human(others)})"
