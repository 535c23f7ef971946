"""The broker's plan: looked at again after each change, one step at a time, so that each step reads settled books.

Order: memory that is measured to be back, slots, waits that are over, a fresh measurement, one grant, evictions, the next tick.
"""

from collections.abc import Iterable

from vllama.actors.core import broker_events as ev
from vllama.actors.core import effects as fx
from vllama.actors.core import refusals
from vllama.actors.core.broker_state import BrokerState, Lease, Slot
from vllama.actors.core.eviction import Holder, busy_victim, victims
from vllama.actors.core.messages import (
    CancelEvict,
    Evict,
    LeaseGranted,
    LeaseRefused,
    Offer,
    Replan,
    SlotGranted,
    WatchUse,
)

BrokerDecision = tuple[list[ev.BrokerEvent], list[fx.BrokerEffect]]

VOID: BrokerDecision = ([], [])
AGAIN = fx.TellSelf(Replan())
BACK_PART = 0.75  # of what a lease gives back must be measured back before it is free
NOISE_BYTES = 2**25  # a process that sleeps does not hold still to the byte
TICK_S = 1.0


def plan(s: BrokerState, now: float) -> BrokerDecision:
    """The next step; ends with `AGAIN` when there may be more to do at once."""
    for step in (returns, slots, overdue):
        events, effects = step(s, now)
        if events or effects:
            return events, [*effects, AGAIN]
    waiting = s.waiting()
    if not waiting:
        return _join(_stand_down(s), _tick(s, waiting))
    if s.measured_epoch != s.epoch:
        return _join(measure(s), _tick(s, waiting))
    granted = _grant(s, waiting, now)
    if granted[0]:
        return granted[0], [*granted[1], AGAIN]
    return _join(_make_room(s, waiting, now), _tick(s, waiting))


def measure(s: BrokerState) -> BrokerDecision:
    """Ask for a measurement, unless one is under way (then its answer is looked at first)."""
    return VOID if s.measuring else ([ev.MeasureBegun(s.epoch)], [fx.Measure(s.epoch)])


def returns(s: BrokerState, now: float) -> BrokerDecision:
    """Leases whose memory is measured to be back, or whose bound has passed."""
    events: list[ev.BrokerEvent] = []
    fresh = s.measured_epoch == s.epoch
    for lease in s.leases.values():
        if lease.state != "returning":
            continue
        late = now - lease.returning_since >= s.policy.memory_return_timeout_s
        still = max((_still_held(s, lease, index) for index in range(len(lease.devices))), default=0)
        gives_back = max(lease.bytes - lease.residue_bytes, 0)
        allowed = (1 - BACK_PART) * gives_back + NOISE_BYTES
        if fresh and still <= allowed:
            events.append(ev.LeaseFreed(lease.model, lease.lease, lease.residue_bytes))
        elif late:
            short = min(still, gives_back)
            events.append(ev.LeaseFreed(lease.model, lease.lease, lease.residue_bytes, short))
    if fresh and not events:
        events += _shrunk(s)
        unsettled = {ls.model for ls in s.leases.values() if ls.state == "held" and not ls.settled}
        for device in s.devices.values():
            for model, booked in device.unreturned.items():
                if model in unsettled:
                    continue  # what it takes anew would hide what it has not given back
                still = min(_beyond_books(s, model, device.id), booked)
                if still != booked:
                    events.append(ev.UnreturnedChanged(device.id, model, still))
    return events, []


def _shrunk(s: BrokerState) -> list[ev.BrokerEvent]:
    """Sleepers that turn out to hold less than was measured when they fell asleep: their memory came back late."""
    events: list[ev.BrokerEvent] = []
    for lease in s.leases.values():
        if lease.state != "residue" or lease.evicting:
            continue
        holds = max(s.devices[device].used_by.get(lease.model, 0) for device in lease.devices)
        if 0 < holds < lease.bytes - NOISE_BYTES:
            events.append(ev.LeaseFreed(lease.model, lease.lease, holds))
    return events


def _still_held(s: BrokerState, lease: Lease, index: int) -> int:
    """Bytes of a returning lease that are measured as not yet back, on its device number `index`."""
    found = s.devices[lease.devices[index]]
    if lease.residue_bytes:
        return max(found.used_by.get(lease.model, 0) - lease.residue_bytes, 0)
    if found.kind == "cpu":
        return 0  # a reaped tree has no private bytes
    return max(found.unattributed_bytes - lease.unattributed[index], 0)


def _beyond_books(s: BrokerState, model: str, device: str) -> int:
    """What a model may still hold beyond its leases: as its own, or as nobody's once its engine is gone."""
    booked = sum(ls.bytes for ls in s.on(device) if ls.model == model)
    found = s.devices[device]
    return max(found.used_by.get(model, 0) - booked, 0) + found.unattributed_bytes


def slots(s: BrokerState, _: float) -> BrokerDecision:
    """Slots to grant now: down before wake before start, first come first within; all devices of a slot at once."""
    held = [slot for slot in s.slots.values() if slot.held]
    order = {"down": 0, "wake": 1, "start": 2}
    events: list[ev.BrokerEvent] = []
    effects: list[fx.BrokerEffect] = []
    passed: list[Slot] = []  # who waits already and may not be overtaken on its devices
    for slot in sorted((x for x in s.slots.values() if not x.held), key=lambda x: order[x.kind]):
        if any(_clash(s, slot, other) for other in (*held, *passed)):
            passed.append(slot)
            continue
        held.append(slot)
        events.append(ev.SlotBooked(slot.model, slot.slot))
        effects.append(fx.TellInstance(slot.model, SlotGranted(slot.slot)))
    return events, effects


def _clash(s: BrokerState, one: Slot, other: Slot) -> bool:
    """CUDA devices: exclusive. CPU: one start at a time, sleeps and wakes overlap freely."""
    for device in one.devices:
        if device in other.devices and (
            s.devices[device].kind == "cuda" or one.kind == other.kind == "start"
        ):
            return True
    return False


def overdue(s: BrokerState, now: float) -> BrokerDecision:
    """Waits that have lasted `wait_timeout_s`: refused, naming who holds what."""
    events: list[ev.BrokerEvent] = []
    effects: list[fx.BrokerEffect] = []
    for lease in s.waiting():
        if now - lease.asked_at < s.policy.wait_timeout_s:
            continue
        denied, told = _deny(s, lease, now)
        events += denied
        effects += told
    return events, effects


def _deny(s: BrokerState, lease: Lease, now: float) -> BrokerDecision:
    """No memory can be had: say what is needed, what is free and who holds the rest."""
    devices = lease.devices or tuple(s.devices)
    free = max((s.free_bytes(device) for device in devices), default=0)
    text = ", ".join(_holders(s, devices))
    refusal = refusals.no_memory(lease.model, lease.bytes, free, text, now - lease.asked_at)
    told = fx.TellInstance(lease.model, LeaseRefused(lease.lease, refusal))
    return [ev.LeaseDenied(lease.model, lease.lease, refusal)], [told]


def _holders(s: BrokerState, devices: tuple[str, ...]) -> Iterable[str]:
    seen: set[tuple[str, int]] = set()
    for device in devices:
        for ls in s.on(device):
            if (ls.model, ls.lease) not in seen:
                seen.add((ls.model, ls.lease))
                yield f"{ls.model} ({ls.state}, {refusals.human(ls.bytes)})"
        for model, size in s.devices[device].unreturned.items():
            yield f"{model} (unreturned, {refusals.human(size)})"


def _stand_down(s: BrokerState) -> BrokerDecision:
    """Nobody waits for memory: drains are called off, watched instances need not tell."""
    events: list[ev.BrokerEvent] = []
    effects: list[fx.BrokerEffect] = []
    for lease in s.leases.values():
        if lease.evicting and lease.state == "held":
            events.append(ev.EvictionCancelled(lease.model, lease.lease))
            effects.append(fx.TellInstance(lease.model, CancelEvict(lease.lease)))
    watched = [lease for lease in s.leases.values() if lease.offered]
    if watched:
        events.append(ev.WatchEnded())
        effects += [fx.TellInstance(lease.model, WatchUse(lease.lease, on=False)) for lease in watched]
    return events, effects


def expects_change(s: BrokerState) -> bool:
    """Somebody waits, or memory is on its way back: only then is measuring worth what it takes from the engines."""
    moving = any(lease.state in ("waiting", "returning") for lease in s.leases.values())
    return moving or any(device.unreturned for device in s.devices.values())


def _tick(s: BrokerState, waiting: list[Lease]) -> BrokerDecision:
    """While something is expected to change by itself, look again each second."""
    if not expects_change(s):
        return VOID
    returning = any(lease.state == "returning" for lease in s.leases.values())
    begun = measure(s) if returning and not waiting and s.measured_epoch != s.epoch else VOID
    if s.ticking:
        return begun
    return [*begun[0], ev.TickSet(on=True)], [*begun[1], fx.SetTick(TICK_S)]


def _options(s: BrokerState, lease: Lease) -> list[tuple[str, ...]]:
    """Where a lease could go, the best first: its own devices, or any one: where it fits with nobody evicted, the emptiest
    of these; else where the least must go."""
    if lease.devices:
        return [lease.devices]
    return [(d,) for d in sorted(s.devices, key=lambda d: (_cost(s, lease, d), -s.free_bytes(d), d))]


def _cost(s: BrokerState, lease: Lease, device: str) -> tuple[int, int]:
    """What has to go for this lease on this device: 0 nothing, 1 idle ones and sleepers, 2 busy ones, 3 it cannot be had at
    all (the pinned, outsiders, a device that is gone); and how many bytes of engines that are up."""
    short = _extra(s, lease, device) - s.free_bytes(device) - _coming(s, device)
    if short <= 0:
        return 0, 0
    found = s.devices[device]
    movable = [ls for ls in s.on(device) if not ls.evicting and not ls.pinned]
    held = [ls for ls in movable if ls.state == "held"]
    asleep = sum(ls.bytes for ls in movable if ls.state == "residue" and ls.model != lease.model)
    out_of_reach = max(found.unattributed_bytes - sum(found.unreturned.values()), 0)
    most = sum(ls.bytes for ls in held) + asleep
    if short > most or _extra(s, lease, device) > found.total_bytes - out_of_reach:
        return 3, most
    idle = [_holder(ls)._replace(in_flight=0) for ls in held if not (ls.answered and ls.in_flight != 0)]
    chosen = victims(idle, short)
    gone = sum(h.bytes for h in chosen)
    return (1, gone) if gone + asleep >= short else (2, most)


def _extra(s: BrokerState, lease: Lease, device: str) -> int:
    """Bytes to come free for this lease: never more than the device can give, less what its sleeper holds already."""
    found = s.devices[device]
    residue = s.residue_of(lease.model)
    whole = min(lease.bytes, max(found.total_bytes - found.shared_bytes, 0))
    return max(whole - (residue.bytes if residue else 0), 0)


def _falling(s: BrokerState, lease: Lease) -> bool:
    """Its sleeper's old lease is still on its way back: the residue is not known yet."""
    return any(
        ls.model == lease.model and ls.state == "returning" and ls.residue_bytes for ls in s.leases.values()
    )


def _grant(s: BrokerState, waiting: list[Lease], now: float) -> BrokerDecision:
    """The first waiter whose whole need is free; nobody overtakes a waiter on its devices after `max_wait_s`."""
    reserved: set[str] = set()
    for lease in waiting:
        options = [] if _falling(s, lease) or s.must_squeeze(lease) else _options(s, lease)
        for devices in options:
            if reserved.isdisjoint(devices) and all(_extra(s, lease, d) <= s.free_bytes(d) for d in devices):
                size = min(
                    min(lease.bytes, s.devices[d].total_bytes - s.devices[d].shared_bytes) for d in devices
                )
                return _book(lease, max(size, 0), devices)
        if now - lease.asked_at >= s.policy.max_wait_s:
            reserved.update(*_options(s, lease))
    return VOID


def _book(lease: Lease, size: int, devices: tuple[str, ...]) -> BrokerDecision:
    booked = ev.LeaseBooked(lease.model, lease.lease, size, devices)
    return [booked], [fx.TellInstance(lease.model, LeaseGranted(lease.lease, size, devices))]


def _make_room(s: BrokerState, waiting: list[Lease], now: float) -> BrokerDecision:
    """Evict for the first waiter of each device; those behind it take what comes free."""
    claimed: set[str] = set()
    decisions: list[BrokerDecision] = []
    for lease in waiting:
        devices = _options(s, lease)[0]
        if claimed.isdisjoint(devices) and not _falling(s, lease):
            decisions.append(_room_for(s, lease, devices, now))
        claimed.update(devices)
    return _join(*decisions)


def _room_for(s: BrokerState, lease: Lease, devices: tuple[str, ...], now: float) -> BrokerDecision:
    """The next thing to do so that this lease fits on these devices; with nothing left to go on any, all that is free."""
    if lease.squeeze and lease.squeezed is None:
        needy = dict.fromkeys(devices, 1)
    else:
        short = {d: _extra(s, lease, d) - s.free_bytes(d) - _coming(s, d) for d in devices}
        needy = {device: size for device, size in short.items() if size > 0}
    for device, size in needy.items():
        decision = _evict_on(s, lease, device, size, now)
        if decision != VOID:
            return decision
    if not needy or not all(_alone(s, lease, device) for device in needy):
        return VOID
    if lease.squeeze:
        return _deny(s, lease, now)
    size = min(s.free_bytes(device) for device in devices)
    if lease.fresh and lease.weights_bytes <= size:
        events, effects = _book(lease, size, devices)
        return events, [*effects, AGAIN]
    return VOID


def _alone(s: BrokerState, lease: Lease, device: str) -> bool:
    """Nothing is left to go on this device, or on its way back: the pinned do not count."""
    others = [ls for ls in s.on(device) if ls.model != lease.model]
    asleep = any(ls.state == "residue" for ls in others)
    held = [ls for ls in s.on(device) if ls.state == "held"]
    return not asleep and all(ls.pinned and ls.in_flight >= 0 for ls in held) and not _coming(s, device)


def _coming(s: BrokerState, device: str) -> int:
    """Bytes that are on their way back already."""
    returning = sum(max(ls.bytes - ls.residue_bytes, 0) for ls in s.on(device) if ls.state == "returning")
    return returning + sum(ls.bytes for ls in s.on(device) if ls.evicting and ls.state in ("held", "residue"))


def _evict_on(s: BrokerState, lease: Lease, device: str, short: int, now: float) -> BrokerDecision:
    held = [ls for ls in s.on(device) if ls.state == "held" and not ls.evicting]
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
    asleep = [
        _holder(ls)._replace(in_flight=0, level=3)
        for ls in s.on(device)
        if ls.state == "residue" and not ls.evicting and ls.model != lease.model
    ]
    chosen = victims(awake, short) or victims(asleep, short)
    if not chosen and now - lease.asked_at >= s.policy.busy_grace_s and (busy := busy_victim(awake)):
        chosen = [busy]
    if chosen:
        considered = tuple((h.model, h.last_used, h.in_flight) for h in (*awake, *asleep))
        events = [
            ev.EvictionOrdered(h.model, h.lease, h.level, lease.model, short, considered, now, lease.lease)
            for h in chosen
        ]
        return list(events), [fx.TellInstance(h.model, Evict(h.lease, h.level)) for h in chosen]
    return VOID


def _holder(ls: Lease) -> Holder:
    return Holder(ls.model, ls.lease, ls.bytes, ls.last_used, ls.in_flight, ls.level)


def _join(*decisions: BrokerDecision) -> BrokerDecision:
    return [e for events, _ in decisions for e in events], [f for _, effects in decisions for f in effects]
