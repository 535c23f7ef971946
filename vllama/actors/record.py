"""What the journal holds: records of what happened, gaps where they are lost, and which of them somebody wants."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from vllama.actors.core.events import REQUEST_EVENTS, Event


class Record(NamedTuple):
    """One thing that happened. `cause` is the kind of the message and the sequence number of the record during whose turn it
    was sent (0: from outside)."""

    seq: int
    at: float
    actor: str
    cause: tuple[str, int]
    event: Event


class Gap(NamedTuple):
    """Records first..last (sequence numbers) are not to be had any more."""

    first: int
    last: int


class Reader(Protocol):
    """Told of each record as it is written, within the turn: it must be quick, and must not tell anybody."""

    def push(self, record: Record) -> None: ...


@dataclass(frozen=True)
class Filter:
    """Which records a reader wants: one actor's, or some kinds; None: all."""

    actor: str | None = None
    kinds: frozenset[str] | None = None

    def wants(self, record: Record) -> bool:
        if self.actor is not None and record.actor != self.actor:
            return False
        return self.kinds is None or type(record.event).__name__ in self.kinds

    def covers_requests(self) -> bool:
        return self.kinds is None or any(kind.__name__ in self.kinds for kind in REQUEST_EVENTS)

    def covers_lifecycle(self) -> bool:
        return self.kinds is None or not self.kinds <= {kind.__name__ for kind in REQUEST_EVENTS}
