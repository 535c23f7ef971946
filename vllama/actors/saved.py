"""A saved journal: read from its lines, folded to any moment, and held against the live states that its last line has."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vllama.actors.codec import VERSION, decode, decode_event, encode
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.instance_state import State
from vllama.actors.core.state import BROKER, StateManager
from vllama.actors.record import Record
from vllama.errors import JournalBroken

Change = tuple[Any, Any]
_FAULTS = (KeyError, TypeError, ValueError, AttributeError, IndexError)


@dataclass(frozen=True)
class Moment:
    """A sequence number or a time; the records up to it, it included, have happened."""

    seq: int | None = None
    at: float | None = None

    def has(self, record: Record) -> bool:
        return record.seq <= self.seq if self.seq is not None else record.at <= (self.at or 0.0)


@dataclass(frozen=True)
class SavedJournal:
    """What a file holds: `seq` and `at` are those of its snapshot, `end` the states that a whole file ends with."""

    seq: int
    at: float
    base: StateManager
    records: tuple[Record, ...]
    lines: tuple[int, ...]  # of each record
    end: dict[str, Any] | None

    @classmethod
    def read(cls, text: Iterable[str]) -> "SavedJournal":
        """Raises JournalBroken, which names the line."""
        rows = _rows(text)
        first, head = next(rows, (1, {}))
        if head.get("kind") != "Snapshot":
            raise JournalBroken(
                "it does not begin with a Snapshot: save one with `vllama events --save FILE`", first
            )
        if head.get("v", 0) > VERSION:
            raise JournalBroken(f"its version is {head['v']}, this vllama reads up to {VERSION}", first)
        base, records, lines = StateManager(), list[Record](), list[int]()
        end: dict[str, Any] | None = None
        try:
            for actor, data in head["states"].items():
                base.put(actor, decode(BrokerState if actor == BROKER else State, data))
            seq, at = int(head["seq"]), float(head["at"])
        except _FAULTS as error:
            raise JournalBroken(f"its Snapshot cannot be read: {error!r}", first) from error
        for number, row in rows:
            if end is not None:
                raise JournalBroken("something stands behind the End", number)
            if row.get("kind") == "End":
                end = row.get("states")
                if not isinstance(end, dict):
                    raise JournalBroken("its End has no states", number)
                continue
            record = _record(row, number)
            if record.seq <= (records[-1].seq if records else seq):
                raise JournalBroken(f"record {record.seq} stands behind a later one", number)
            records.append(record)
            lines.append(number)
        return cls(seq, at, base, tuple(records), tuple(lines), end)

    def fold(self, until: Moment | None = None) -> tuple[StateManager, Record | None]:
        """The state at a moment (None: the end), and the last record that had happened. Raises JournalBroken."""
        states, last = self.base.copy(), None
        for number, record in zip(self.lines, self.records, strict=True):
            if until is not None and not until.has(record):
                break
            try:
                states.apply(record.actor, record.event)
            except _FAULTS as error:
                raise _unfit(record, number, error) from error
            last = record
        return states, last

    def steps(self, after: Moment | None = None) -> "Iterator[tuple[Record, dict[str, Change]]]":
        """Each record (after a moment), and what it changed of its actor's state: by place, before and after (None: nothing
        was, or is, there). Raises JournalBroken."""
        states, _ = self.fold(after) if after is not None else (self.base.copy(), None)
        for number, record in zip(self.lines, self.records, strict=True):
            if after is not None and after.has(record):
                continue
            before = _places(encode(states.state(record.actor)))
            try:
                states.apply(record.actor, record.event)
            except _FAULTS as error:
                raise _unfit(record, number, error) from error
            now = _places(encode(states.state(record.actor)))
            changed = (place for place in {**before, **now} if before.get(place) != now.get(place))
            yield record, {place: (before.get(place), now.get(place)) for place in changed}

    def differences(self) -> list[str]:
        """Where the fold is not the live state that was saved. Fields that a newer vllama has added are its own affair."""
        states, _ = self.fold()
        found: list[str] = []
        for actor, saved in (self.end or {}).items():
            found += _between(actor, saved, encode(states.state(actor)))
        return found


def _rows(text: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            cut = "" if line.endswith("\n") else " (the file was cut off there)"
            raise JournalBroken(f"not JSON{cut}: {error}", number) from error
        if not isinstance(row, dict):
            raise JournalBroken("not a JSON object", number)
        yield number, row


def _record(row: dict[str, Any], number: int) -> Record:
    try:
        cause = (row["cause"]["message"], row["cause"]["seq"])
        return Record(int(row["seq"]), float(row["at"]), str(row["actor"]), cause, decode_event(row))
    except _FAULTS as error:
        kind = row.get("kind", "?")
        raise JournalBroken(f"no record that this vllama knows ({kind}: {error!r})", number) from error


def _unfit(record: Record, number: int, error: Exception) -> JournalBroken:
    kind = type(record.event).__name__
    return JournalBroken(f"{kind} does not follow from what stands before it ({error!r})", number)


def _places(tree: Any, path: str = "") -> dict[str, Any]:
    """A state's leaves by their places: phase, leases.org/model 3.bytes."""
    if isinstance(tree, dict):
        rows = list(tree.items())
    elif isinstance(tree, list) and tree and all(_is_pair(item) for item in tree):
        rows = [
            (" ".join(map(str, key)) if isinstance(key, list) else key, True if item is None else item)
            for key, item in tree
        ]
    else:
        return {path: tree}
    found: dict[str, Any] = {}
    for key, item in rows:
        found |= _places(item, f"{path}.{key}" if path else str(key))
    return found


def _is_pair(item: Any) -> bool:
    """A table whose keys are no names is saved as pairs of key and row."""
    return isinstance(item, list) and len(item) == 2 and isinstance(item[0], list | int)


def _between(path: str, saved: Any, folded: Any) -> Iterator[str]:
    if isinstance(saved, dict) and isinstance(folded, dict):
        for key in saved:
            yield from _between(f"{path}.{key}", saved[key], folded.get(key))
    elif isinstance(saved, list) and isinstance(folded, list) and len(saved) == len(folded):
        for number, pair in enumerate(zip(saved, folded, strict=True)):
            yield from _between(f"{path}[{number}]", *pair)
    elif saved != folded:
        yield f"{path}: saved {json.dumps(saved)}, folded {json.dumps(folded)}"
