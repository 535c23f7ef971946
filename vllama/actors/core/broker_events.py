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


@fact
class SlotBooked:
    model: str
    slot: int


@fact
class SlotFreed:
    model: str
    slot: int


@fact
class OfferMade:
    model: str
    lease: int


@fact
class OfferAnswered:
    """`in_flight` is -1 when the offer was declined."""

    model: str
    lease: int
    last_used: float
    in_flight: int
    pinned: bool
    level: Level


@fact
class UseChanged:
    model: str
    lease: int
    in_flight: int
    last_used: float


@fact
class EvictionOrdered:
    """For whom, how many bytes short, and who was considered: (model, last used, in flight)."""

    model: str
    lease: int
    level: Level
    wanted_by: str
    short_bytes: int
    considered: tuple[tuple[str, float, int], ...]
    at: float
    wanted_lease: int = 0


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
    | UnreturnedChanged | SlotQueued | SlotBooked | SlotFreed | OfferMade | OfferAnswered | UseChanged
    | EvictionOrdered | EvictionCancelled | WatchEnded | MeasureBegun | DevicesMeasured | TickSet | HolderForgotten
)  # fmt: skip
