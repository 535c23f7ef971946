"""What is under way while records are read: who waits, what is booked, who goes."""

from collections import deque
from dataclasses import dataclass, field

from vllama.actors.core.messages import Phase
from vllama.actors.explain.episodes import Asked, Episode, Eviction, Wait

EPISODES_MAX = 1000  # the latest are kept

Key = tuple[str, int]


class Open:
    """A wait that goes on, and what is needed to go on with it."""

    def __init__(self, wait: Wait) -> None:
        self.wait = wait
        self.waiting: set[int] = set()
        self.commands: set[int] = set()
        self.step = ""  # the part of the wait that is under way, and since when
        self.since = wait.at


@dataclass(slots=True)
class Ledger:
    """`episodes` is what came of the records so far, oldest first; `asked` is every request whose id is `request`."""

    request: str | None = None
    episodes: deque[Episode] = field(default_factory=lambda: deque(maxlen=EPISODES_MAX))
    asked: list[Asked] = field(default_factory=list)
    open: dict[str, Open] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)  # of asks that wait
    followed: dict[int, Asked] = field(default_factory=dict)
    phases: dict[str, Phase] = field(default_factory=dict)
    leases: dict[Key, int] = field(default_factory=dict)  # bytes booked
    queue: dict[Key, None] = field(default_factory=dict)  # who waits for memory
    slots: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    moving: dict[Key, tuple[str, ...]] = field(
        default_factory=dict
    )  # who is in transition, and on which devices
    evictions: dict[Key, Eviction] = field(default_factory=dict)
