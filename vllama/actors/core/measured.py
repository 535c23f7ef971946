"""What the broker is told of devices: that they are there, and what was measured."""

from typing import Literal

from vllama.actors.core.facts import fact


@fact
class DeviceFound:
    """A device that leases can be booked on."""

    device: str
    kind: Literal["cpu", "cuda"]
    total_bytes: int


@fact
class DeviceMeasured:
    """One device as measured: `used_by` (model, bytes) counts whole process trees."""

    device: str
    free_bytes: int
    shared_bytes: int
    used_by: tuple[tuple[str, int], ...]


@fact
class Measured:
    """The outcome of Measure; `devices` is empty when the host could not be asked."""

    epoch: int
    devices: tuple[DeviceMeasured, ...]
