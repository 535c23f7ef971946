"""What the broker knows of devices, leases and slots, and how each event changes it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from vllama.actors.core import broker_events as ev
from vllama.actors.core.books import DERIVED, Device, Key, Lease, Slot
from vllama.actors.core.events import Event
from vllama.actors.core.known import LEARNING, Known, learn
from vllama.actors.core.messages import BrokerPolicy
from vllama.actors.core.shelves import Shelves

__all__ = ["BrokerState", "Device", "Key", "Lease", "Slot", "evolve"]

FRESH_S = 2.0  # for so long a look at a GPU holds: other programs use it too


@dataclass(slots=True)
class BrokerState:
    """All devices, all leases, all slots: one writer."""

    policy: BrokerPolicy = field(default_factory=BrokerPolicy)
    devices: dict[str, Device] = field(default_factory=dict)
    leases: dict[Key, Lease] = field(default_factory=dict)
    slots: dict[Key, Slot] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)  # by model: its weights in the host's RAM
    known: dict[str, Known] = field(default_factory=dict)  # by model: what was learned of it
    epoch: int = 0
    measured_epoch: int = -1
    measured_at: float = 0.0
    measuring: bool = False
    ticking: bool = False
    _shelves: Shelves | None = field(default=None, init=False, compare=False, repr=False, metadata=DERIVED)

    @property
    def shelves(self) -> Shelves:
        """Where each lease and slot is found: made when first looked at, then kept by `evolve`."""
        if self._shelves is None:
            self._shelves = Shelves(self.devices, self.leases, self.slots)
        return self._shelves

    def copy(self) -> "BrokerState":
        """An independent copy."""
        return replace(
            self,
            devices={
                k: replace(d, used_by=dict(d.used_by), unreturned=dict(d.unreturned))
                for k, d in self.devices.items()
            },
            leases={k: replace(lease) for k, lease in self.leases.items()},
            slots={k: replace(slot) for k, slot in self.slots.items()},
            copies=dict(self.copies),
            known={k: found.copy() for k, found in self.known.items()},
        )

    def waiting(self) -> list[Lease]:
        """Who waits for memory, first come first."""
        return list(self.shelves.waiting.values())

    def on(self, device: str) -> list[Lease]:
        """The leases booked on a device."""
        return list(self.shelves.on(device).all())

    def booked_bytes(self, device: str) -> int:
        """Law 4: held, returning, residue, unreturned and shared; at most what the device has."""
        d = self.devices[device]
        leased = self.shelves.on(device).leased_bytes + sum(d.unreturned.values())
        return leased + min(d.shared_bytes, max(d.total_bytes - leased, 0))

    def free_bytes(self, device: str) -> int:
        """What may be granted: the smaller of what the books say and what was measured, less what is promised but not taken."""
        d = self.devices[device]
        promised = 0
        for ls in self.shelves.on(device).held.values():
            promised += max(ls.bytes - d.used_by.get(ls.model, 0), 0)
        return max(min(d.total_bytes - self.booked_bytes(device), d.free_measured - promised), 0)

    def copies_bytes(self) -> int:
        """Law 4 for the host's RAM: what has slept at level 1, and what is about to; at most `sleep_ram_max_bytes`."""
        granted = sum(slot.copy_bytes for slot in self.slots.values() if slot.held)
        return sum(self.copies.values()) + granted

    def must_squeeze(self, lease: Lease) -> bool:
        """One more has to go before this lease can be granted, and it has not gone yet."""
        if not lease.squeeze:
            return False
        victim = self.leases.get(lease.squeezed) if lease.squeezed else None
        return (
            lease.squeezed is None
            or (victim is not None and victim.evicting)
            or (victim is not None and victim.state == "returning")
        )

    def residue_of(self, model: str) -> Lease | None:
        """What a sleeper still holds."""
        return self.shelves.residue_of(model)


def evolve(state: BrokerState, event: Event, /) -> None:
    """Take a fact in."""
    if isinstance(event, LEARNING):
        slot = state.slots.get((event.model, event.slot)) if isinstance(event, ev.SlotFreed) else None
        learn(state.known, slot.kind if slot else None, event)
    _CHANGES[type(event)](state, event)


def _forget(s: BrokerState, model: str, number: int) -> None:
    """The lease is in the books no more."""
    lease = s.leases.pop((model, number), None)
    if lease is not None:
        s.shelves.drop(lease)


def _created(s: BrokerState, e: ev.BrokerCreated) -> None:
    s.policy = e.policy


def _device_added(s: BrokerState, e: ev.DeviceAdded) -> None:
    s.devices[e.device] = Device(e.device, e.device_kind, e.total_bytes, free_measured=e.total_bytes)


def _lease_queued(s: BrokerState, e: ev.LeaseQueued) -> None:
    on_gpus = any(device.kind == "cuda" for device in s.devices.values())
    if on_gpus and not s.shelves.waiting and e.at - s.measured_at > FRESH_S:
        s.measured_epoch = -1  # while anyone waits each second is looked at; nobody has waited
    lease = s.leases[e.model, e.lease] = Lease(
        e.model,
        e.lease,
        e.bytes,
        e.weights_bytes,
        e.devices,
        e.fresh,
        "waiting",
        asked_at=e.at,
        squeeze=e.squeeze,
        priority=e.priority,
        launched_bytes=e.launched_bytes,
    )
    s.shelves.file(lease)


def _lease_booked(s: BrokerState, e: ev.LeaseBooked) -> None:
    residue = s.residue_of(e.model)
    if residue is not None:  # a wake's lease covers what the sleeper still held
        _forget(s, residue.model, residue.lease)
    lease = s.leases[e.model, e.lease]
    lease.state, lease.bytes, lease.devices, lease.cleared = "held", e.bytes, e.devices, ()
    lease.unattributed = tuple(s.devices[device].unattributed_bytes for device in e.devices)
    s.shelves.file(lease)


def _lease_denied(s: BrokerState, e: ev.LeaseDenied) -> None:
    _forget(s, e.model, e.lease)


def _lease_withdrawn(s: BrokerState, e: ev.LeaseWithdrawn) -> None:
    _forget(s, e.model, e.lease)


def _lease_returning(s: BrokerState, e: ev.LeaseReturning) -> None:
    lease = s.leases[e.model, e.lease]
    lease.state, lease.returning_since, lease.last_used = "returning", e.at, e.last_used
    lease.residue_bytes, lease.priority, lease.pinned = e.residue_bytes, e.priority, e.pinned
    lease.evicting = lease.offered = lease.answered = False
    s.epoch += 1
    s.shelves.file(lease)


def _lease_freed(s: BrokerState, e: ev.LeaseFreed) -> None:
    lease = s.leases[e.model, e.lease]
    if e.unreturned_bytes:
        for device in lease.devices:
            s.devices[device].unreturned[e.model] = e.unreturned_bytes
    if e.residue_bytes:
        lease.state, lease.bytes = "residue", min(e.residue_bytes, lease.bytes)
        s.shelves.file(lease)
    else:
        _forget(s, e.model, e.lease)


def _unreturned(s: BrokerState, e: ev.UnreturnedChanged) -> None:
    if e.bytes:
        s.devices[e.device].unreturned[e.model] = e.bytes
    else:
        s.devices[e.device].unreturned.pop(e.model, None)


def _slot_queued(s: BrokerState, e: ev.SlotQueued) -> None:
    slot = Slot(e.model, e.slot, e.transition, e.devices, copy_bytes=e.copy_bytes)
    s.slots[e.model, e.slot] = slot
    s.shelves.file_slot(slot)


def _slot_booked(s: BrokerState, e: ev.SlotBooked) -> None:
    slot = s.slots[e.model, e.slot]
    slot.held, slot.copy_bytes = True, e.copy_bytes
    s.shelves.file_slot(slot)


def _slot_freed(s: BrokerState, e: ev.SlotFreed) -> None:
    slot = s.slots.pop((e.model, e.slot))
    s.shelves.drop_slot(slot)
    if slot.held:
        if e.copied:
            s.copies[e.model] = slot.copy_bytes
        s.epoch += 1
        for lease in s.shelves.of_model.get(e.model, {}).values():
            if lease.state == "held":
                lease.settled = True


def _copy_freed(s: BrokerState, e: ev.CopyFreed) -> None:
    s.copies.pop(e.model, None)


def _offer_made(s: BrokerState, e: ev.OfferMade) -> None:
    lease = s.leases[e.model, e.lease]
    lease.offered = True
    s.shelves.file(lease)


def _offer_answered(s: BrokerState, e: ev.OfferAnswered) -> None:
    lease = s.leases[e.model, e.lease]
    lease.answered, lease.in_flight, lease.last_used = True, e.in_flight, e.last_used
    lease.pinned, lease.level, lease.priority = e.pinned, e.level, e.priority
    s.shelves.file(lease)


def _prioritized(s: BrokerState, e: ev.LeasePrioritized) -> None:
    lease = s.leases[e.model, e.lease]
    lease.priority, lease.pinned = e.priority, e.pinned
    s.shelves.file(lease)


def _use_changed(s: BrokerState, e: ev.UseChanged) -> None:
    lease = s.leases[e.model, e.lease]
    lease.in_flight, lease.last_used = e.in_flight, e.last_used


def _eviction_ordered(s: BrokerState, e: ev.EvictionOrdered) -> None:
    lease = s.leases[e.model, e.lease]
    lease.evicting = True
    s.shelves.file(lease)
    wanted = s.leases.get((e.wanted_by, e.wanted_lease))
    if wanted is None:
        return
    if e.model not in wanted.cleared:
        wanted.cleared = (*wanted.cleared, e.model)
    if wanted.squeeze:
        wanted.squeezed = (e.model, e.lease)


def _room_sought(s: BrokerState, e: ev.RoomSought) -> None:
    lease = s.leases[e.model, e.lease]
    lease.sought = (*lease.sought, (e.device, tuple((model, why) for model, why, _ in e.spared)))


def _eviction_cancelled(s: BrokerState, e: ev.EvictionCancelled) -> None:
    going = s.leases[e.model, e.lease]
    going.evicting = False
    s.shelves.file(going)
    for lease in s.leases.values():
        if lease.squeezed == (e.model, e.lease):
            lease.squeezed = None


def _watch_ended(s: BrokerState, _: ev.WatchEnded) -> None:
    for lease in tuple(s.shelves.offered.values()):
        lease.offered = lease.answered = False
        s.shelves.file(lease)


def _measure_begun(s: BrokerState, _: ev.MeasureBegun) -> None:
    s.measuring = True


def _measured(s: BrokerState, e: ev.DevicesMeasured) -> None:
    s.measuring, s.measured_epoch, s.measured_at = False, e.epoch, e.at
    for found in e.devices:
        if (device := s.devices.get(found.device)) is not None:
            s.shelves.measured(device.measured(found))


def _tick_set(s: BrokerState, e: ev.TickSet) -> None:
    s.ticking = e.on


def _holder_forgotten(s: BrokerState, e: ev.HolderForgotten) -> None:
    for _, number in tuple(s.shelves.of_model.get(e.model, ())):
        _forget(s, e.model, number)
    for slot in [slot for slot in s.slots.values() if slot.model == e.model]:
        s.shelves.drop_slot(s.slots.pop((slot.model, slot.slot)))
    s.copies.pop(e.model, None)
    s.epoch += 1


_CHANGES: dict[type, Callable[[BrokerState, Any], None]] = {
    ev.BrokerCreated: _created,
    ev.DeviceAdded: _device_added,
    ev.LeaseQueued: _lease_queued,
    ev.LeaseBooked: _lease_booked,
    ev.LeaseDenied: _lease_denied,
    ev.LeaseWithdrawn: _lease_withdrawn,
    ev.LeaseReturning: _lease_returning,
    ev.LeaseFreed: _lease_freed,
    ev.UnreturnedChanged: _unreturned,
    ev.SlotQueued: _slot_queued,
    ev.SlotBooked: _slot_booked,
    ev.SlotFreed: _slot_freed,
    ev.CopyFreed: _copy_freed,
    ev.OfferMade: _offer_made,
    ev.OfferAnswered: _offer_answered,
    ev.LeasePrioritized: _prioritized,
    ev.UseChanged: _use_changed,
    ev.EvictionOrdered: _eviction_ordered,
    ev.RoomSought: _room_sought,
    ev.EvictionCancelled: _eviction_cancelled,
    ev.WatchEnded: _watch_ended,
    ev.MeasureBegun: _measure_begun,
    ev.DevicesMeasured: _measured,
    ev.TickSet: _tick_set,
    ev.HolderForgotten: _holder_forgotten,
}
