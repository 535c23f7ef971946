"""What the broker's books are made of: devices, leases, slots. `broker_state.py` says how each event changes them."""

from dataclasses import dataclass, field
from typing import Literal

from vllama.actors.core.messages import DeviceMeasured, Level, SlotKind

Key = tuple[str, int]  # model, lease (or slot)
DERIVED = {
    "derived": True
}  # a field's metadata: it follows from the others, so it is neither compared nor saved


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
    used_bytes: int = field(default=0, init=False, compare=False, repr=False, metadata=DERIVED)

    def __post_init__(self) -> None:
        self.used_bytes = sum(self.used_by.values())

    def measured(self, found: DeviceMeasured) -> set[str]:
        """Take a measurement in; the models whose use is another than before."""
        used = dict(found.used_by)
        changed = {model for model, _ in used.items() ^ self.used_by.items()}
        self.free_measured, self.shared_bytes, self.used_by = found.free_bytes, found.shared_bytes, used
        self.used_bytes = sum(used.values())
        return changed

    @property
    def unattributed_bytes(self) -> int:
        """Measured as used, by nobody we know: others, and what the dead have not yet given back."""
        return max(self.total_bytes - self.free_measured - self.used_bytes - self.shared_bytes, 0)


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
    cleared: tuple[str, ...] = ()  # waiting: the models that were told to go for it
    settled: bool = False  # its start or wake is over: what is measured is what it takes
    sought: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()  # situations told of while it waits
    priority: int = 0  # waiting: of the most urgent who waits for it; else of its model
    launched_bytes: int = 0  # waiting, for a wake: the lease that its engine was launched with

    @property
    def gives_back(self) -> int:
        """What comes free of each device, when it has gone to where it is going."""
        return max(self.bytes - self.residue_bytes, 0)


@dataclass(slots=True)
class Slot:
    """The right to be in transition on devices."""

    model: str
    slot: int
    kind: SlotKind
    devices: tuple[str, ...]
    held: bool = False
    copy_bytes: int = 0  # of the host's RAM: asked for; once held, granted
