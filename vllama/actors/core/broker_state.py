"""What the broker knows of devices, leases and slots, and how each event changes it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from vllama.actors.core import broker_events as ev
from vllama.actors.core.events import Event
from vllama.actors.core.messages import BrokerPolicy, Level, SlotKind

Key = tuple[str, int]  # model, lease (or slot)


@dataclass(slots=True)
class Device:
    """One memory. `epoch` counts the transitions that have ended; a measurement is fresh if none ended after it began."""

    id: str
    kind: Literal["cpu", "cuda"]
    total_bytes: int
    free_measured: int = 0
    shared_bytes: int = 0
    used_by: dict[str, int] = field(default_factory=dict)
    unreturned: dict[str, int] = field(default_factory=dict)

    @property
    def unattributed_bytes(self) -> int:
        """Measured as used, by nobody we know: others, and what the dead have not yet given back."""
        known = sum(self.used_by.values()) + self.shared_bytes
        return max(self.total_bytes - self.free_measured - known, 0)


@dataclass(slots=True)
class Lease:
    """Memory of one instance: waiting -> held -> returning -> residue -> (forgotten). Bytes are per device."""

    model: str
    lease: int
    bytes: int
    weights_bytes: int
    devices: tuple[str, ...]
    fresh: bool
    state: Literal["waiting", "held", "returning", "residue"]
    asked_at: float = 0.0
    returning_since: float = 0.0
    residue_bytes: int = 0  # as measured, even if that is more than the lease
    unattributed: tuple[int, ...] = ()  # of each device when the lease was granted
    last_used: float = 0.0
    in_flight: int = -1  # -1: declined, coming up
    pinned: bool = False
    level: Level = 2
    offered: bool = False
    answered: bool = False
    evicting: bool = False
    squeeze: bool = False  # one more has to go before this lease is granted...
    squeezed: Key | None = None  # ...and this one is going
    settled: bool = False  # its start or wake is over: what is measured is what it takes


@dataclass(slots=True)
class Slot:
    """The right to be in transition on devices."""

    model: str
    slot: int
    kind: SlotKind
    devices: tuple[str, ...]
    held: bool = False


@dataclass(slots=True)
class BrokerState:
    """All devices, all leases, all slots: one writer."""

    policy: BrokerPolicy = field(default_factory=BrokerPolicy)
    devices: dict[str, Device] = field(default_factory=dict)
    leases: dict[Key, Lease] = field(default_factory=dict)
    slots: dict[Key, Slot] = field(default_factory=dict)
    epoch: int = 0
    measured_epoch: int = -1
    measuring: bool = False
    ticking: bool = False

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
        )

    def waiting(self) -> list[Lease]:
        """Who waits for memory, first come first."""
        return [lease for lease in self.leases.values() if lease.state == "waiting"]

    def on(self, device: str) -> list[Lease]:
        """The leases booked on a device."""
        return [ls for ls in self.leases.values() if ls.state != "waiting" and device in ls.devices]

    def booked_bytes(self, device: str) -> int:
        """Law 4: held, returning, residue, unreturned and shared; at most what the device has."""
        d = self.devices[device]
        leased = sum(lease.bytes for lease in self.on(device)) + sum(d.unreturned.values())
        return leased + min(d.shared_bytes, max(d.total_bytes - leased, 0))

    def free_bytes(self, device: str) -> int:
        """What may be granted: the smaller of what the books say and what was measured, less what is promised but not taken."""
        d = self.devices[device]
        promised = sum(
            max(ls.bytes - d.used_by.get(ls.model, 0), 0) for ls in self.on(device) if ls.state == "held"
        )
        return max(min(d.total_bytes - self.booked_bytes(device), d.free_measured - promised), 0)

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
        return next((ls for ls in self.leases.values() if ls.model == model and ls.state == "residue"), None)


def evolve(state: BrokerState, event: Event, /) -> None:
    """Take a fact in."""
    _CHANGES[type(event)](state, event)


def _created(s: BrokerState, e: ev.BrokerCreated) -> None:
    s.policy = e.policy


def _device_added(s: BrokerState, e: ev.DeviceAdded) -> None:
    s.devices[e.device] = Device(e.device, e.device_kind, e.total_bytes, free_measured=e.total_bytes)


def _lease_queued(s: BrokerState, e: ev.LeaseQueued) -> None:
    s.leases[e.model, e.lease] = Lease(
        e.model,
        e.lease,
        e.bytes,
        e.weights_bytes,
        e.devices,
        e.fresh,
        "waiting",
        asked_at=e.at,
        squeeze=e.squeeze,
    )


def _lease_booked(s: BrokerState, e: ev.LeaseBooked) -> None:
    residue = s.residue_of(e.model)
    if residue is not None:  # a wake's lease covers what the sleeper still held
        del s.leases[residue.model, residue.lease]
    lease = s.leases[e.model, e.lease]
    lease.state, lease.bytes, lease.devices = "held", e.bytes, e.devices
    lease.unattributed = tuple(s.devices[device].unattributed_bytes for device in e.devices)


def _lease_denied(s: BrokerState, e: ev.LeaseDenied) -> None:
    s.leases.pop((e.model, e.lease), None)


def _lease_withdrawn(s: BrokerState, e: ev.LeaseWithdrawn) -> None:
    s.leases.pop((e.model, e.lease), None)


def _lease_returning(s: BrokerState, e: ev.LeaseReturning) -> None:
    lease = s.leases[e.model, e.lease]
    lease.state, lease.returning_since, lease.last_used = "returning", e.at, e.last_used
    lease.residue_bytes = e.residue_bytes
    lease.evicting = lease.offered = lease.answered = False
    s.epoch += 1


def _lease_freed(s: BrokerState, e: ev.LeaseFreed) -> None:
    lease = s.leases[e.model, e.lease]
    if e.unreturned_bytes:
        for device in lease.devices:
            s.devices[device].unreturned[e.model] = e.unreturned_bytes
    if e.residue_bytes:
        lease.state, lease.bytes = "residue", min(e.residue_bytes, lease.bytes)
    else:
        del s.leases[e.model, e.lease]


def _unreturned(s: BrokerState, e: ev.UnreturnedChanged) -> None:
    if e.bytes:
        s.devices[e.device].unreturned[e.model] = e.bytes
    else:
        s.devices[e.device].unreturned.pop(e.model, None)


def _slot_queued(s: BrokerState, e: ev.SlotQueued) -> None:
    s.slots[e.model, e.slot] = Slot(e.model, e.slot, e.transition, e.devices)


def _slot_booked(s: BrokerState, e: ev.SlotBooked) -> None:
    s.slots[e.model, e.slot].held = True


def _slot_freed(s: BrokerState, e: ev.SlotFreed) -> None:
    slot = s.slots.pop((e.model, e.slot))
    if slot.held:
        s.epoch += 1
        for lease in s.leases.values():
            if lease.model == e.model and lease.state == "held":
                lease.settled = True


def _offer_made(s: BrokerState, e: ev.OfferMade) -> None:
    s.leases[e.model, e.lease].offered = True


def _offer_answered(s: BrokerState, e: ev.OfferAnswered) -> None:
    lease = s.leases[e.model, e.lease]
    lease.answered, lease.in_flight, lease.last_used = True, e.in_flight, e.last_used
    lease.pinned, lease.level = e.pinned, e.level


def _use_changed(s: BrokerState, e: ev.UseChanged) -> None:
    lease = s.leases[e.model, e.lease]
    lease.in_flight, lease.last_used = e.in_flight, e.last_used


def _eviction_ordered(s: BrokerState, e: ev.EvictionOrdered) -> None:
    s.leases[e.model, e.lease].evicting = True
    wanted = s.leases.get((e.wanted_by, e.wanted_lease))
    if wanted is not None and wanted.squeeze:
        wanted.squeezed = (e.model, e.lease)


def _eviction_cancelled(s: BrokerState, e: ev.EvictionCancelled) -> None:
    s.leases[e.model, e.lease].evicting = False
    for lease in s.leases.values():
        if lease.squeezed == (e.model, e.lease):
            lease.squeezed = None


def _watch_ended(s: BrokerState, _: ev.WatchEnded) -> None:
    for lease in s.leases.values():
        lease.offered = lease.answered = False


def _measure_begun(s: BrokerState, _: ev.MeasureBegun) -> None:
    s.measuring = True


def _measured(s: BrokerState, e: ev.DevicesMeasured) -> None:
    s.measuring, s.measured_epoch = False, e.epoch
    for found in e.devices:
        if (device := s.devices.get(found.device)) is not None:
            device.free_measured, device.shared_bytes = found.free_bytes, found.shared_bytes
            device.used_by = dict(found.used_by)


def _tick_set(s: BrokerState, e: ev.TickSet) -> None:
    s.ticking = e.on


def _holder_forgotten(s: BrokerState, e: ev.HolderForgotten) -> None:
    s.leases = {k: lease for k, lease in s.leases.items() if lease.model != e.model}
    s.slots = {k: slot for k, slot in s.slots.items() if slot.model != e.model}
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
    ev.OfferMade: _offer_made,
    ev.OfferAnswered: _offer_answered,
    ev.UseChanged: _use_changed,
    ev.EvictionOrdered: _eviction_ordered,
    ev.EvictionCancelled: _eviction_cancelled,
    ev.WatchEnded: _watch_ended,
    ev.MeasureBegun: _measure_begun,
    ev.DevicesMeasured: _measured,
    ev.TickSet: _tick_set,
    ev.HolderForgotten: _holder_forgotten,
}
