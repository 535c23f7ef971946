"""The broker's plan: looked at again after each change, one step at a time, so that each step reads settled books. What it
looks at is found by `shelves.py`, so that a step costs the same with a thousand models.

Order: memory that is measured to be back, slots, waits that are over, a fresh measurement, one grant, evictions, the next tick.
"""

from vllama.actors.core import broker_events as ev
from vllama.actors.core import effects as fx
from vllama.actors.core.books import Lease, Slot
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.granting import (
    AGAIN,
    VOID,
    BrokerDecision,
    deny,
    grant,
    join,
    make_room,
    ranked,
)
from vllama.actors.core.messages import CancelEvict, SlotGranted, WatchUse
from vllama.actors.core.places import Places
from vllama.actors.core.shelves import NOISE_BYTES

__all__ = ["AGAIN", "VOID", "BrokerDecision", "expects_change", "measure", "plan"]

BACK_PART = 0.75  # of what a lease gives back must be measured back before it is free
TICK_S = 1.0
_KINDS = ("down", "wake", "start")  # who waits for a slot is served in this order


def plan(s: BrokerState, now: float) -> BrokerDecision:
    """The next step; ends with `AGAIN` when there may be more to do at once."""
    for step in (returns, slots, overdue):
        events, effects = step(s, now)
        if events or effects:
            return events, [*effects, AGAIN]
    if not s.shelves.waiting:
        return join(_stand_down(s), _tick(s))
    if s.measured_epoch != s.epoch:
        return join(measure(s), _tick(s))
    places = Places(s)
    waiting = ranked(s, now)
    granted = grant(s, places, waiting, now)
    if granted[0]:
        return granted[0], [*granted[1], AGAIN]
    return join(make_room(s, places, waiting, now), _tick(s))


def measure(s: BrokerState) -> BrokerDecision:
    """Ask for a measurement, unless one is under way (then its answer is looked at first)."""
    return VOID if s.measuring else ([ev.MeasureBegun(s.epoch)], [fx.Measure(s.epoch)])


def returns(s: BrokerState, now: float) -> BrokerDecision:
    """Leases whose memory is measured to be back, or whose bound has passed."""
    events: list[ev.BrokerEvent] = []
    fresh = s.measured_epoch == s.epoch
    for lease in s.shelves.returning.values():
        late = now - lease.returning_since >= s.policy.memory_return_timeout_s
        still = max((_still_held(s, lease, index) for index in range(len(lease.devices))), default=0)
        allowed = (1 - BACK_PART) * lease.gives_back + NOISE_BYTES
        if fresh and still <= allowed:
            events.append(ev.LeaseFreed(lease.model, lease.lease, lease.residue_bytes))
        elif late:
            short = min(still, lease.gives_back)
            events.append(ev.LeaseFreed(lease.model, lease.lease, lease.residue_bytes, short))
    if fresh and not events:
        shelves = s.shelves  # sleepers whose memory came back late: they hold less than when they fell asleep
        events += [ev.LeaseFreed(ls.model, ls.lease, shelves.holds(ls)) for ls in shelves.shrunk.values()]
        events += _found_again(s)
    return events, []


def _found_again(s: BrokerState) -> list[ev.BrokerEvent]:
    """Memory that was booked as unreturned, and is measured to be back, all of it or some."""
    events: list[ev.BrokerEvent] = []
    for device in s.devices.values():
        for model, booked in device.unreturned.items():
            mine = s.shelves.of_model.get(model, {}).values()
            if any(ls.state == "held" and not ls.settled for ls in mine):
                continue  # what it takes anew would hide what it has not given back
            still = min(_beyond_books(s, model, device.id), booked)
            if still != booked:
                events.append(ev.UnreturnedChanged(device.id, model, still))
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
    mine = s.shelves.of_model.get(model, {}).values()
    booked = sum(ls.bytes for ls in mine if ls.state != "waiting" and device in ls.devices)
    found = s.devices[device]
    return max(found.used_by.get(model, 0) - booked, 0) + found.unattributed_bytes


def slots(s: BrokerState, _: float) -> BrokerDecision:
    """Slots to grant now: down before wake before start, first come first within; all devices of a slot at once. The host's
    RAM comes with it or not: nobody waits for that."""
    shelves = s.shelves
    if not any(shelves.lined_up.values()):
        return VOID
    taken: set[str] = (
        set()
    )  # by who moves there, or waits already and may not be overtaken: CUDA devices are exclusive
    starting: set[str] = set()  # on CPU one start at a time; sleeps and wakes overlap freely
    for slot in shelves.moving.values():
        _take(s, slot, taken, starting)
    room = s.policy.sleep_ram_max_bytes - s.copies_bytes()
    events: list[ev.BrokerEvent] = []
    effects: list[fx.BrokerEffect] = []
    for slot in (slot for kind in _KINDS for slot in shelves.lined_up[kind].values()):
        if len(taken) == len(s.devices):
            break
        clash = _clashes(slot, taken, starting)
        _take(s, slot, taken, starting)
        if clash:
            continue
        copy = slot.copy_bytes if slot.copy_bytes <= room else 0
        room -= copy
        events.append(ev.SlotBooked(slot.model, slot.slot, copy))
        effects.append(fx.TellInstance(slot.model, SlotGranted(slot.slot, copy)))
    return events, effects


def _take(s: BrokerState, slot: Slot, taken: set[str], starting: set[str]) -> None:
    for device in slot.devices:
        if s.devices[device].kind == "cuda":
            taken.add(device)
        elif slot.kind == "start":
            starting.add(device)


def _clashes(slot: Slot, taken: set[str], starting: set[str]) -> bool:
    """Somebody else moves on its devices, or is before it."""
    if not taken.isdisjoint(slot.devices):
        return True
    return slot.kind == "start" and not starting.isdisjoint(slot.devices)


def overdue(s: BrokerState, now: float) -> BrokerDecision:
    """Waits that have lasted `wait_timeout_s`: refused, naming who holds what."""
    events: list[ev.BrokerEvent] = []
    effects: list[fx.BrokerEffect] = []
    for lease in s.shelves.waiting.values():
        if now - lease.asked_at < s.policy.wait_timeout_s:
            break  # who came later waits for less
        denied, told = deny(s, lease, now)
        events += denied
        effects += told
    return events, effects


def _stand_down(s: BrokerState) -> BrokerDecision:
    """Nobody waits for memory: drains are called off, watched instances need not tell."""
    events: list[ev.BrokerEvent] = []
    effects: list[fx.BrokerEffect] = []
    for lease in s.shelves.draining.values():
        events.append(ev.EvictionCancelled(lease.model, lease.lease))
        effects.append(fx.TellInstance(lease.model, CancelEvict(lease.lease)))
    watched = s.shelves.offered.values()
    if watched:
        events.append(ev.WatchEnded())
        effects += [fx.TellInstance(lease.model, WatchUse(lease.lease, on=False)) for lease in watched]
    return events, effects


def expects_change(s: BrokerState) -> bool:
    """Somebody waits, or memory is on its way back: only then is measuring worth what it takes from the engines."""
    moving = bool(s.shelves.waiting or s.shelves.returning)
    return moving or any(device.unreturned for device in s.devices.values())


def _tick(s: BrokerState) -> BrokerDecision:
    """While something is expected to change by itself, look again each second."""
    if not expects_change(s):
        return VOID
    shelves = s.shelves
    stale = s.measured_epoch != s.epoch
    begun = measure(s) if shelves.returning and not shelves.waiting and stale else VOID
    if s.ticking:
        return begun
    return [*begun[0], ev.TickSet(on=True)], [*begun[1], fx.SetTick(TICK_S)]
