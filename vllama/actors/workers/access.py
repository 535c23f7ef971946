"""What a worker process must know of who may ask."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WorkerAccess:
    """Who may ask, as the system has read it: digests of keys."""

    data_keys: tuple[bytes, ...]
    control_keys: tuple[bytes, ...]
    control_off: bool
