"""What the broker looks things up by, so that a decision costs the same with a thousand models: who waits, by where and how
urgently; who is booked on each device, in which state, and what that comes to.

All of it follows from the books. `evolve` files a lease or a slot anew whenever it has changed it; nothing here is compared,
journalled or saved, and a state that comes from a snapshot makes its own when it is first looked at.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import TypeAlias

from vllama.actors.core.books import Device, Key, Lease, Slot

NOISE_BYTES = 2**25  # a process that sleeps does not hold still to the byte
LATE = float("-inf")  # in place of a priority: who has waited `max_wait_s` comes before all others

Entry: TypeAlias = tuple[float, int, Lease]  # urgency (the less the sooner), number in the order of arrival
Place: TypeAlias = tuple[str, tuple[str, ...], int, int, int, int]


class Queue:
    """Who waits for the same devices (none: any one). By priority, and in the order of arrival within one."""

    __slots__ = ("_needs", "classes")

    def __init__(self) -> None:
        self.classes: dict[int, list[Entry]] = {}
        self._needs: list[int] = []

    def put(self, number: int, lease: Lease, need: int) -> None:
        insort(self.classes.setdefault(lease.priority, []), (-lease.priority, number, lease))
        insort(self._needs, need)

    def take(self, number: int, priority: int, need: int) -> None:
        entries = self.classes[priority]
        del entries[bisect_left(entries, number, key=lambda entry: entry[1])]
        if not entries:
            del self.classes[priority]
        del self._needs[bisect_left(self._needs, need)]

    @property
    def least(self) -> int:
        """No waiter here needs fewer bytes, but for one that is cut down to an empty device."""
        return self._needs[0]

    def first(self, late_before: float, at_most: int) -> list[Entry]:
        """The first ones, those who have asked by `late_before` above all priorities."""
        found: list[Entry] = []
        for entries in self.classes.values():
            for urgency, number, lease in entries[:at_most]:
                found.append((LATE if lease.asked_at <= late_before else urgency, number, lease))
        found.sort()
        return found[:at_most]

    def __iter__(self) -> Iterator[Entry]:
        for entries in self.classes.values():
            yield from entries

    def __len__(self) -> int:
        return len(self._needs)


class Shelf:
    """One device's leases by state, in the order in which they came to be in it, and sums over them."""

    __slots__ = ("asleep_bytes", "coming_bytes", "held", "leased_bytes", "residue", "returning")

    def __init__(self) -> None:
        self.held: dict[Key, Lease] = {}
        self.returning: dict[Key, Lease] = {}
        self.residue: dict[Key, Lease] = {}
        self.leased_bytes = 0
        self.coming_bytes = 0  # on their way back already
        self.asleep_bytes = 0  # of sleepers that may be stopped

    @property
    def sums(self) -> tuple[int, int, int]:
        return self.leased_bytes, self.coming_bytes, self.asleep_bytes

    def of(self, state: str) -> dict[Key, Lease]:
        """The leases in this state."""
        return self.held if state == "held" else self.residue if state == "residue" else self.returning

    def all(self) -> Iterator[Lease]:
        """All that is booked here: who is up first."""
        yield from self.held.values()
        yield from self.returning.values()
        yield from self.residue.values()

    def __len__(self) -> int:
        return len(self.held) + len(self.returning) + len(self.residue)


class Shelves:
    """All leases and slots of the books, where each is found."""

    def __init__(self, devices: dict[str, Device], leases: dict[Key, Lease], slots: dict[Key, Slot]) -> None:
        self._devices = devices
        self._numbers: dict[Key, int] = {}  # of arrival, while it waits
        self._number = 0
        self._places: dict[Key, Place] = {}
        self._shelves = {device: Shelf() for device in devices}
        self.queues: dict[tuple[str, ...], Queue] = {}
        self.waiting: dict[Key, Lease] = {}  # in the order of arrival
        self.returning: dict[Key, Lease] = {}
        self.draining: dict[Key, Lease] = {}  # held, and told to go
        self.offered: dict[Key, Lease] = {}
        self.shrunk: dict[Key, Lease] = {}  # sleepers measured to hold less than is booked for them
        self.of_model: dict[str, dict[Key, Lease]] = {}
        self.moving: dict[Key, Slot] = {}  # slots that are held
        self.lined_up: dict[str, dict[Key, Slot]] = {"down": {}, "wake": {}, "start": {}}
        for lease in leases.values():
            self.file(lease)
        for slot in slots.values():
            self.file_slot(slot)

    def on(self, device: str) -> Shelf:
        found = self._shelves.get(device)
        if found is None:
            found = self._shelves[device] = Shelf()
        return found

    def residue_of(self, model: str) -> Lease | None:
        """What a sleeper still holds."""
        leases = self.of_model.get(model)
        return next((ls for ls in leases.values() if ls.state == "residue"), None) if leases else None

    # --- leases -------------------------------------------------------------------------------------------------------

    def file(self, lease: Lease) -> None:
        """It is new, or it has changed."""
        key = (lease.model, lease.lease)
        old, new = self._places.get(key), self._place(lease)
        held = lease.state == "held"
        _keep(self.draining, key, lease, held and lease.evicting)
        _keep(self.offered, key, lease, lease.offered)
        _keep(self.shrunk, key, lease, lease.state == "residue" and self._holds_less(lease))
        if old == new:
            return
        self._places[key] = new
        self.of_model.setdefault(lease.model, {})[key] = lease
        same = old is not None and old[:2] == new[:2]
        if old is not None:
            self._uncount(key, old, keep=same)
        self._count(key, lease, new)
        if "residue" in (lease.state, old[0] if old else ""):
            self._residue_changed(lease.model)

    def drop(self, lease: Lease) -> None:
        """It is in the books no more."""
        key = (lease.model, lease.lease)
        place = self._places.pop(key, None)
        if place is None:
            return
        self._uncount(key, place, keep=False)
        for index in (self.draining, self.offered, self.shrunk):
            index.pop(key, None)
        mine = self.of_model[lease.model]
        del mine[key]
        if not mine:
            del self.of_model[lease.model]
        if place[0] == "residue":
            self._residue_changed(lease.model)

    def measured(self, models: set[str]) -> None:
        """These models' use has changed: are sleepers of theirs booked with too much?"""
        for model in models:
            for key, lease in self.of_model.get(model, {}).items():
                if lease.state == "residue":
                    _keep(self.shrunk, key, lease, self._holds_less(lease))

    def _place(self, ls: Lease) -> Place:
        """Where a lease is found, and what it counts for there."""
        if ls.state == "waiting":
            residue = self.residue_of(ls.model)
            need = max(ls.bytes - (residue.bytes if residue else 0), 0)
            return "waiting", ls.devices, ls.priority, need, 0, 0
        if ls.state == "returning":
            return "returning", ls.devices, 0, ls.bytes, ls.gives_back, 0
        asleep = ls.bytes if ls.state == "residue" and not (ls.evicting or ls.pinned) else 0
        return ls.state, ls.devices, 0, ls.bytes, ls.bytes if ls.evicting else 0, asleep

    def _count(self, key: Key, lease: Lease, place: Place) -> None:
        state, devices, _, size, coming, asleep = place
        if state == "waiting":
            self._number += 1
            number = self._numbers.setdefault(key, self._number)
            queue = self.queues.get(devices)
            if queue is None:
                queue = self.queues[devices] = Queue()
            queue.put(number, lease, size)
            self.waiting[key] = lease
            return
        if state == "returning":
            self.returning[key] = lease
        for device in devices:
            shelf = self.on(device)
            shelf.of(state)[key] = lease
            shelf.leased_bytes += size
            shelf.coming_bytes += coming
            shelf.asleep_bytes += asleep

    def _uncount(self, key: Key, place: Place, *, keep: bool) -> None:
        """`keep`: it stays where it is, only what it counts for is another."""
        state, devices, priority, size, coming, asleep = place
        if state == "waiting":
            queue = self.queues[devices]
            queue.take(self._numbers[key], priority, size)
            if not len(queue):
                del self.queues[devices]
            if not keep:
                del self._numbers[key], self.waiting[key]
            return
        if state == "returning" and not keep:
            del self.returning[key]
        for device in devices:
            shelf = self.on(device)
            if not keep:
                del shelf.of(state)[key]
            shelf.leased_bytes -= size
            shelf.coming_bytes -= coming
            shelf.asleep_bytes -= asleep

    def _residue_changed(self, model: str) -> None:
        """Who waits for this model needs so much less, or more."""
        for lease in tuple(self.of_model.get(model, {}).values()):
            if lease.state == "waiting":
                self.file(lease)

    def _holds_less(self, lease: Lease) -> bool:
        if lease.evicting:
            return False
        return 0 < self.holds(lease) < lease.bytes - NOISE_BYTES

    def holds(self, lease: Lease) -> int:
        """What its engine is measured to take, on the device where that is most."""
        return max(self._devices[device].used_by.get(lease.model, 0) for device in lease.devices)

    def seen(self) -> dict[str, object]:
        """All that can be found here, as plain data: two shelves of the same books are equal in it."""
        queues = {
            devices: [(number, urgency, ls.model, ls.lease) for urgency, number, ls in sorted(queue)]
            for devices, queue in self.queues.items()
        }
        shelves = {
            device: [set(shelf.held), set(shelf.returning), set(shelf.residue), shelf.sums]
            for device, shelf in self._shelves.items()
        }
        order = [[entry[2:] for entry in sorted(entries, key=lambda e: e[0])] for entries in queues.values()]
        named = (self.waiting, self.returning, self.draining, self.offered, self.shrunk, self.moving)
        return {
            "queues": dict(zip(queues, order, strict=True)),
            "least": {devices: queue.least for devices, queue in self.queues.items()},
            "shelves": shelves,
            "indexes": [set(index) for index in named],
            "first come": list(self.waiting),
            "lined up": {kind: list(slots) for kind, slots in self.lined_up.items()},
            "models": {model: set(leases) for model, leases in self.of_model.items()},
        }

    # --- slots --------------------------------------------------------------------------------------------------------

    def file_slot(self, slot: Slot) -> None:
        key = (slot.model, slot.slot)
        _keep(self.lined_up[slot.kind], key, slot, not slot.held)
        _keep(self.moving, key, slot, slot.held)

    def drop_slot(self, slot: Slot) -> None:
        key = (slot.model, slot.slot)
        self.lined_up[slot.kind].pop(key, None)
        self.moving.pop(key, None)


def _keep(index: dict[Key, Lease] | dict[Key, Slot], key: Key, item: Lease | Slot, there: bool) -> None:
    if there:
        index[key] = item  # type: ignore[assignment]  # an index of leases is given leases, one of slots slots
    else:
        index.pop(key, None)
