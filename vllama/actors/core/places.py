"""Where a lease could go, and what would have to go for it there: one plan's look at the devices, each figure worked out once."""

from bisect import bisect_left
from collections.abc import Collection
from itertools import accumulate

from vllama.actors.core.books import Lease
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.shelves import NOISE_BYTES


def exceeds(lease: Lease, size: int) -> bool:
    """A wake of an engine that takes more than `size` bytes, and was launched with more: one that is started within them takes
    less. One that was launched within them takes what it takes; to start it again would change nothing."""
    return not lease.fresh and min(lease.bytes, lease.launched_bytes) > size + NOISE_BYTES


class Place:
    """One device as it is now."""

    __slots__ = ("_idle_bytes", "_up_bytes", "free", "id", "reach", "room", "shelf", "soon")

    def __init__(self, s: BrokerState, device: str) -> None:
        found = s.devices[device]
        self.id = device
        self.shelf = s.shelves.on(device)
        self.free = s.free_bytes(device)  # what may be granted
        self.soon = self.free + self.shelf.coming_bytes  # once all that is on its way back has come
        self.room = max(found.total_bytes - found.shared_bytes, 0)  # a lease is cut down to it
        outsiders = max(found.unattributed_bytes - sum(found.unreturned.values()), 0)
        self.reach = found.total_bytes - outsiders
        self._up_bytes = -1  # of those that could go: not worked out yet
        self._idle_bytes: list[int] = []

    def cost(self, extra: int, own_bytes: int) -> tuple[int, int]:
        """What has to go so that `extra` bytes come free: 0 nothing, 1 idle ones and sleepers, 2 busy ones, 3 it cannot be had
        at all (the pinned, outsiders, a device that is gone); and how many bytes of engines that are up. `own_bytes` are a
        sleeper's own, which does not make way for itself."""
        short = extra - self.soon
        if short <= 0:
            return 0, 0
        if self._up_bytes < 0:
            self._look()
        asleep = self.shelf.asleep_bytes - own_bytes
        most = self._up_bytes + asleep
        if short > most or extra > self.reach:
            return 3, most
        idle = self._idle_bytes
        gone = idle[min(bisect_left(idle, short), len(idle) - 1)] if idle else 0
        return (1, gone) if gone + asleep >= short else (2, most)

    def _look(self) -> None:
        """All that is up and not pinned could go; of the idle, in the order in which they would, so much with each more."""
        up = 0
        idle: list[tuple[int, float, str, int]] = []
        for ls in self.shelf.held.values():
            if ls.evicting or ls.pinned:
                continue
            up += ls.bytes
            if not (ls.answered and ls.in_flight != 0):
                idle.append((ls.priority, ls.last_used, ls.model, ls.bytes))
        idle.sort()
        self._up_bytes, self._idle_bytes = up, list(accumulate(size for *_, size in idle))


class Places:
    """The books do not change while one plan is made."""

    def __init__(self, s: BrokerState) -> None:
        self._s = s
        self._places = {device: Place(s, device) for device in s.devices}

    def free(self, device: str) -> int:
        """What may be granted there."""
        return self._places[device].free

    def room(self, device: str) -> int:
        """The most that any lease could be given there, with everybody gone but vllama's own helpers."""
        return self._places[device].room

    def extra(self, lease: Lease, device: str) -> int:
        """Bytes to come free for this lease: never more than the device can give, less what its sleeper holds already."""
        residue = self._s.shelves.residue_of(lease.model)
        whole = min(lease.bytes, self._places[device].room)
        return max(whole - (residue.bytes if residue else 0), 0)

    def is_outgrown(self, lease: Lease) -> bool:
        """A wake of an engine that was launched with more than there is room for now, whoever else goes."""
        return any(exceeds(lease, self._places[device].room) for device in lease.devices)

    def most(self, lease: Lease, devices: tuple[str, ...]) -> int:
        """What this lease could be given there now, with what its own sleeper holds: even one that has grown."""
        residue = self._s.shelves.residue_of(lease.model)
        if residue is None:
            return min(self.free(device) for device in devices)
        found = []
        for device in devices:
            there = self._s.devices[device]
            grown = max(there.used_by.get(lease.model, 0) - residue.bytes, 0)
            ledger = there.total_bytes - self._s.booked_bytes(device)
            found.append(max(min(ledger, self.free(device) + grown), 0) + residue.bytes)
        return min(found)

    def short(self, lease: Lease, device: str) -> int:
        """Bytes that are still missing once all that is on its way back has come."""
        return self.extra(lease, device) - self._places[device].soon

    def is_coming(self, lease: Lease) -> bool:
        """All that this lease needs is free, or on its way back."""
        return all(self.short(lease, device) <= 0 for device in self.best(lease))

    def some_fit(self, reserved: Collection[str]) -> bool:
        """Whether anybody who waits could be granted on devices that are not reserved; True may turn out not to be so."""
        roomy = {device for device in self._places if device not in reserved}
        for devices, queue in self._s.shelves.queues.items():
            if devices:
                if all(device in roomy and self._may_fit(device, queue.least) for device in devices):
                    return True
            elif any(self._may_fit(device, queue.least) for device in roomy):
                return True
        return False

    def _may_fit(self, device: str, least: int) -> bool:
        """An empty device takes whom no full one could: leases are cut down to it."""
        place = self._places[device]
        return place.free >= least or not (place.shelf.held or place.shelf.returning)

    def most_free(self) -> int | None:
        """No fresh start that needs more can be granted now; None where a device is empty, and cuts any down to itself."""
        places = self._places.values()
        if not all(place.shelf.held or place.shelf.returning for place in places):
            return None
        return max((place.free for place in places), default=0)

    def fit(self, lease: Lease, reserved: Collection[str]) -> tuple[str, ...] | None:
        """Devices where the whole lease is free now: its own, or the emptiest one."""
        residue = self._s.shelves.residue_of(lease.model)
        own = residue.bytes if residue else 0
        fits = [
            place
            for place in (self._places[d] for d in lease.devices or self._places)
            if place.free >= min(lease.bytes, place.room) - own
            and place.room >= lease.weights_bytes
            and place.id not in reserved
        ]
        if lease.devices:
            return lease.devices if len(fits) == len(lease.devices) else None
        return (min(fits, key=lambda place: (-place.free, place.id)).id,) if fits else None

    def best(self, lease: Lease) -> tuple[str, ...]:
        """Its own devices; or any one: where it fits with nobody evicted, the emptiest of these; else where the least must go."""
        if lease.devices:
            return lease.devices
        residue = self._s.shelves.residue_of(lease.model)
        own = residue.bytes if residue else 0
        there = residue.devices if residue and not (residue.evicting or residue.pinned) else ()
        found = [
            (place.cost(max(min(lease.bytes, place.room) - own, 0), own if d in there else 0), -place.free, d)
            for d, place in self._places.items()
        ]
        return (min(found)[2],)

    def asleep_bytes(self, lease: Lease, device: str) -> int:
        """What other sleepers hold there that may be stopped."""
        residue = self._s.shelves.residue_of(lease.model)
        counted = residue is not None and not (residue.evicting or residue.pinned)
        there = residue is not None and counted and device in residue.devices
        mine = residue.bytes if residue is not None and there else 0
        return self._places[device].shelf.asleep_bytes - mine
