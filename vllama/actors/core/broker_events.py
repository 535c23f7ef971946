"""What happened to the books: the broker's events, past tense, one class each."""

from typing import Literal

from vllama.actors.core.messages import BrokerPolicy, DeviceMeasured, Level, Refusal, SlotKind, fact


@fact
class BrokerCreated:
    policy: BrokerPolicy


@fact
class DeviceAdded:
    device: str
    device_kind: Literal["cpu", "cuda"]
    total_bytes: int


@fact
class LeaseQueued:
    model: str
    lease: int
    bytes: int
    weights_bytes: int
    devices: tuple[str, ...]
    fresh: bool
    at: float
    squeeze: bool = False
    visits: float = 0.0
    priority: int = 0
    launched_bytes: int = 0


@fact
class LeaseBooked:
    model: str
    lease: int
    bytes: int
    devices: tuple[str, ...]


@fact
class LeaseDenied:
    model: str
    lease: int
    refusal: Refusal


@fact
class LeaseWithdrawn:
    model: str
    lease: int


@fact
class LeaseReturning:
    """Given back by its holder; the memory is not yet measured to be back."""

    model: str
    lease: int
    residue_bytes: int
    last_used: float
    at: float
    visits: float = 0.0
    priority: int = 0
    pinned: bool = False


@fact
class LeaseFreed:
    """The memory is back, but for the sleeper's residue and for what is booked as unreturned."""

    model: str
    lease: int
    residue_bytes: int
    unreturned_bytes: int = 0


@fact
class UnreturnedChanged:
    device: str
    model: str
    bytes: int


@fact
class SlotQueued:
    model: str
    slot: int
    transition: SlotKind
    devices: tuple[str, ...]
    copy_bytes: int = 0


@fact
class SlotBooked:
    """`copy_bytes`: of the host's RAM, which a sleep at level 1 will take."""

    model: str
    slot: int
    copy_bytes: int = 0


@fact
class SlotFreed:
    """`copied`: the host's RAM that came with the slot is taken for as long as the engine lives. `took_s`: the transition, to
    or from `level` (0: it did not end well, or was none)."""

    model: str
    slot: int
    copied: bool = False
    took_s: float = 0.0
    level: Level = 0
    at: float = 0.0


@fact
class CopyFreed:
    """The engine is gone, and with it its weights in the host's RAM."""

    model: str


@fact
class OfferMade:
    model: str
    lease: int


@fact
class OfferAnswered:
    """`in_flight` is -1 when the offer was declined. `levels`: to which it may go; `copy_bytes`: of the host's RAM, for 1."""

    model: str
    lease: int
    last_used: float
    in_flight: int
    pinned: bool
    level: Level
    levels: tuple[Level, ...] = ()
    copy_bytes: int = 0
    visits: float = 0.0
    priority: int = 0


@fact
class LeasePrioritized:
    """Of one that waits, or of a sleeper's, which may be pinned."""

    model: str
    lease: int
    priority: int
    pinned: bool = False


@fact
class UseChanged:
    model: str
    lease: int
    in_flight: int
    last_used: float


@fact
class EvictionOrdered:
    """For whom, how many bytes short, who was considered: (model, last used, in flight); and who was spared: (model, why, in
    flight). Lists end after the first few; `left_out` counts the rest. `weighed`, where costs decide: visits to be expected,
    seconds to come back, seconds to go."""

    model: str
    lease: int
    level: Level
    wanted_by: str
    short_bytes: int
    considered: tuple[tuple[str, float, int], ...]
    at: float
    wanted_lease: int = 0
    device: str = ""
    spared: tuple[tuple[str, str, int], ...] = ()
    left_out: int = 0
    weighed: tuple[float, ...] = ()


@fact
class RoomSought:
    """A lease is short of bytes on a device, and nobody there can go now: who is spared, and why. Once for each situation."""

    model: str
    lease: int
    device: str
    short_bytes: int
    spared: tuple[tuple[str, str, int], ...]
    left_out: int
    at: float


@fact
class EvictionCancelled:
    model: str
    lease: int


@fact
class WatchEnded:
    """Nobody waits: what was learned about use is forgotten."""


@fact
class MeasureBegun:
    epoch: int


@fact
class DevicesMeasured:
    epoch: int
    devices: tuple[DeviceMeasured, ...]
    at: float


@fact
class TickSet:
    on: bool


@fact
class HolderForgotten:
    model: str


BrokerEvent = (
    BrokerCreated | DeviceAdded | LeaseQueued | LeaseBooked | LeaseDenied | LeaseWithdrawn | LeaseReturning | LeaseFreed
    | UnreturnedChanged | SlotQueued | SlotBooked | SlotFreed | CopyFreed | OfferMade | OfferAnswered
    | LeasePrioritized | UseChanged
    | EvictionOrdered | RoomSought | EvictionCancelled | WatchEnded | MeasureBegun | DevicesMeasured | TickSet | HolderForgotten
)  # fmt: skip
