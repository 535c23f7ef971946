"""What there is to explain: waits, evictions, requests; each with what the journal says of it."""

from dataclasses import dataclass, field
from typing import Literal

NAMES_MAX = 16  # ids of requests kept of one wait; the others are counted


@dataclass(slots=True)
class Sought:
    """A moment of a wait in which nobody could go: who was spared, and why."""

    at: float
    device: str
    short_bytes: int
    spared: tuple[tuple[str, str, int], ...]
    left_out: int


@dataclass(slots=True)
class Eviction:
    """One model made to go for another. `idle_s` is None for one that was busy or whose use is not known."""

    at: float
    model: str
    lease: int
    level: int
    wanted_by: str
    device: str
    short_bytes: int
    idle_s: float | None
    in_flight: int
    spared: tuple[tuple[str, str, int], ...]
    left_out: int
    weighed: tuple[
        float, ...
    ] = ()  # where costs decided: visits expected, seconds to come back, seconds to go
    outcome: Literal["", "slept", "stopped", "cancelled"] = ""
    freed_bytes: int | None = None
    took_s: float | None = None  # until its memory was measured to be back


@dataclass(slots=True)
class Wait:
    """From the first who waited for a model, or its request for memory, until it was awake or nobody waited any more."""

    model: str
    at: float
    outcome: Literal["", "awake", "refused", "left"] = ""
    ended: float | None = None
    how: str = ""  # cold, wake, or stayed: its own way down was called off
    asks: int = 0
    requests: list[str] = field(default_factory=list)
    priority: int = 0
    bytes: int = 0
    granted_bytes: int = 0
    devices: tuple[str, ...] = ()
    memory_s: float = 0.0
    turn_s: float = 0.0
    engine_s: float = 0.0
    tries: int = 0
    behind: tuple[str, ...] = ()  # who waited for memory already
    turns: tuple[str, ...] = ()  # who was in transition on its devices when it asked for its turn
    evictions: list[Eviction] = field(default_factory=list)
    sought: list[Sought] = field(default_factory=list)
    refusals: int = 0


@dataclass(slots=True)
class Asked:
    """One request: what became of it."""

    model: str
    ask: int
    request: str
    at: float
    how: str = ""
    admitted: float | None = None
    ended: float | None = None
    wait: Wait | None = None
    code: str = ""
    refusal: str = ""


@dataclass(slots=True)
class Refused:
    """Requests for a model that got the same refusal at the same time."""

    model: str
    at: float
    code: str
    message: str
    asks: int = 1
    requests: list[str] = field(default_factory=list)


Episode = Wait | Eviction | Refused | Asked
