"""The journal: one sequence, two bounded rings in memory over base states, and its live readers.

Lifecycle and requests have rings of their own, so that traffic cannot flush the history. A snapshot of every actor's state is
taken each SEGMENT records; a fold starts from the oldest snapshot after which both rings still hold everything. The read model
(`states`) looks at the living actors' own states, which the same events have made: `fold` gives the same. Nothing is written
to disk.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from vllama.actors.codec import VERSION, decode, decode_event, encode, encode_event
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.events import REQUEST_EVENTS, Event
from vllama.actors.core.instance_state import State
from vllama.actors.core.state import BROKER, Folded, StateManager
from vllama.actors.record import Filter, Gap, Reader, Record
from vllama.actors.subscription import Subscription
from vllama.actors.tally import Tally

SEGMENT = 1000
_record = tuple.__new__  # what Record(...) does, without the call between: two a request


class Ring:
    """The latest records of one sort; `lost` is the sequence number of the newest one that has left it."""

    def __init__(self, records_max: int) -> None:
        self.records: deque[Record] = deque()
        self.records_max = records_max
        self.lost = 0


class Journal:
    """One sequence of all that happened, and the state that it folds to."""

    def __init__(
        self, clock: Callable[[], float], lifecycle_max: int = 50_000, requests_max: int = 10_000
    ) -> None:
        self.seq = 0
        self.states = StateManager()
        self._clock = clock
        self._lifecycle = Ring(lifecycle_max)
        self._requests = Ring(requests_max)
        self._snapshots: deque[tuple[int, float, StateManager]] = deque([(0, clock(), StateManager())])
        self._snapshot_due = SEGMENT
        self.tally = Tally()
        self._readers: list[Reader] = [self.tally]
        self._live: set[str] = set()
        self._changed: set[str] = set()  # since the latest snapshot

    def follow(self, actor: str, state: Folded) -> None:
        """From now on `states` shows this state, which its actor evolves itself: no event is folded twice."""
        self.states.put(actor, state)
        self._live.add(actor)
        self._changed.add(actor)

    def append(self, actor: str, cause: tuple[str, int], event: Event, at: float) -> int:
        """Write one record; returns its sequence number."""
        if self.seq >= self._snapshot_due:
            self._snapshot()
        self._changed.add(actor)
        seq = self.seq = self.seq + 1
        record = _record(Record, (seq, at, actor, cause, event))
        ring = self._requests if type(event) in REQUEST_EVENTS else self._lifecycle
        held = ring.records
        if len(held) >= ring.records_max:
            ring.lost = held.popleft().seq
        held.append(record)
        if actor not in self._live:
            self.states.apply(actor, event)
        for reader in self._readers:
            reader.push(record)
        return seq

    def subscribe(
        self, since: int | None = None, *, actor: str | None = None, kinds: frozenset[str] | None = None
    ) -> Subscription:
        """Records after `since` (None: from now on), then live ones, with a gap where the rings have lost some."""
        wanted = Filter(actor, kinds)
        gap, held = (None, ()) if since is None else self.read(since, wanted)
        subscription = Subscription(wanted, held, gap, self.forget)
        self._readers.append(subscription)
        return subscription

    def now(self) -> float:
        """By the clock of its records."""
        return self._clock()

    def attach(self, reader: Reader) -> None:
        """From now on this reader is told of every record, until `forget`."""
        self._readers.append(reader)

    def read(self, since: int, wanted: Filter) -> tuple[Gap | None, tuple[Record, ...]]:
        """What is held after `since`, and the gap if a ring that the filter covers has lost something after it."""
        lost = 0
        if wanted.covers_lifecycle():
            lost = self._lifecycle.lost
        if wanted.covers_requests():
            lost = max(lost, self._requests.lost)
        gap = Gap(since + 1, lost) if lost > since else None
        return gap, tuple(r for r in self.records() if r.seq > since and wanted.wants(r))

    def forget(self, reader: Reader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)

    def records(self) -> Iterable[Record]:
        """Everything held, in order of sequence."""
        return heapq.merge(self._lifecycle.records, self._requests.records, key=lambda r: r.seq)

    def still(self) -> Iterable[Record]:
        """The same, as it is now: for a reader in another thread."""
        return heapq.merge(tuple(self._lifecycle.records), tuple(self._requests.records), key=lambda r: r.seq)

    def base(self) -> tuple[int, StateManager]:
        """The number of the oldest snapshot that can be folded on, and a copy of it."""
        seq, _, base = self._oldest()
        return seq, base.copy()

    def fold(self) -> StateManager:
        """The state by the journal alone, from the oldest snapshot that can be folded on."""
        seq, states = self.base()
        for record in self.records():
            if record.seq > seq:
                states.apply(record.actor, record.event)
        return states

    def saved(self) -> Iterable[dict[str, Any]]:
        """The journal as JSON lines that `load` folds: the oldest usable snapshot, then all later records."""
        seq, at, base = self._oldest()
        states = {actor: encode(base.state(actor)) for actor in base.actors()}
        yield {"kind": "Snapshot", "v": VERSION, "seq": seq, "at": at, "states": states}
        for record in self.records():
            if record.seq > seq:
                yield record_json(record)

    def ended(self, live: dict[str, Any]) -> dict[str, Any]:
        """The last line of a saved journal: the state that the fold must come to."""
        return {
            "kind": "End",
            "seq": self.seq,
            "states": {actor: encode(state) for actor, state in live.items()},
        }

    def _snapshot(self) -> None:
        states = self.states.copy_since(self._snapshots[-1][2], self._changed)
        self._snapshots.append((self.seq, self._clock(), states))
        self._snapshot_due = self.seq + SEGMENT
        self._changed.clear()
        lost = max(self._lifecycle.lost, self._requests.lost)
        while len(self._snapshots) > 1 and self._snapshots[0][0] < lost:
            self._snapshots.popleft()

    def _oldest(self) -> tuple[int, float, StateManager]:
        lost = max(self._lifecycle.lost, self._requests.lost)
        return next((s for s in self._snapshots if s[0] >= lost), (self.seq, self._clock(), self.states))


def record_json(record: Record) -> dict[str, Any]:
    """A record as the debug stream sends it."""
    message, seq = record.cause
    head = {
        "seq": record.seq,
        "at": record.at,
        "actor": record.actor,
        "cause": {"message": message, "seq": seq},
    }
    return head | encode_event(record.event)


def load(lines: Iterable[dict[str, Any]]) -> tuple[StateManager, list[Record]]:
    """A saved journal, folded: the end state and its records. Raises ValueError when it begins with no snapshot."""
    rows = iter(lines)
    head = next(rows, {})
    if head.get("kind") != "Snapshot" or head.get("v", 0) > VERSION:
        raise ValueError("not a saved journal of this version: its first line must be a Snapshot")
    states, records = StateManager(), []
    for actor, data in head["states"].items():
        states.put(actor, decode(BrokerState if actor == BROKER else State, data))
    for row in rows:
        if row["kind"] == "End":
            break
        cause = (row["cause"]["message"], row["cause"]["seq"])
        record = Record(row["seq"], row["at"], row["actor"], cause, decode_event(row))
        records.append(record)
        states.apply(record.actor, record.event)
    return states, records
