"""A saved journal that is not whole: where it is wrong, by its line."""

import json
from pathlib import Path

import pytest

from vllama.actors import Moment, SavedJournal
from vllama.errors import JournalBroken

LINES = (Path(__file__).parent.parent / "replay" / "journals" / "seed-14.jsonl").read_text().splitlines(True)
ROWS = [json.loads(line) for line in LINES]


def line(number: int, **changed: object) -> str:
    """The line of this number (from 1), changed."""
    return json.dumps(ROWS[number - 1] | changed) + "\n"


@pytest.mark.parametrize(
    ("text", "number", "words"),
    [
        ([], 1, "does not begin with a Snapshot"),
        (LINES[1:], 1, "does not begin with a Snapshot"),
        ([line(1, v=99), *LINES[1:]], 1, "version is 99"),
        ([line(1, states={"m": {"run": []}, "broker": 7}), *LINES[1:]], 1, "Snapshot cannot be read"),
        ([*LINES[:7], "{oops\n", *LINES[7:]], 8, "not JSON: "),
        ([*LINES[:20], LINES[20][:30]], 21, "not JSON (the file was cut off there)"),
        ([LINES[0], "\n", "7\n"], 3, "not a JSON object"),
        ([*LINES[:9], line(10, kind="Nonesuch"), *LINES[10:]], 10, "Nonesuch"),
        ([*LINES[:9], line(10, seq="x"), *LINES[10:]], 10, "no record that this vllama knows"),
        ([*LINES[:5], LINES[4], *LINES[5:]], 6, "stands behind a later one"),
        ([*LINES, LINES[-2]], len(LINES) + 1, "behind the End"),
        ([*LINES[:-1], '{"kind": "End"}\n'], len(LINES), "its End has no states"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text: list[str], number: int, words: str) -> None:
    with pytest.raises(JournalBroken) as broken:
        SavedJournal.read(text)
    assert broken.value.line == number
    assert words in broken.value.message


def test_a_record_that_does_not_follow_is_named_with_its_line() -> None:
    booked = next(n for n, row in enumerate(ROWS) if row["kind"] == "LeaseQueued")
    journal = SavedJournal.read([*LINES[:booked], *LINES[booked + 1 :]])
    with pytest.raises(JournalBroken, match="does not follow from what stands before it") as broken:
        journal.fold()
    assert broken.value.line > booked


def test_every_moment_folds_and_the_last_one_is_the_live_state() -> None:
    journal = SavedJournal.read(LINES)
    assert journal.differences() == []
    whole, last = journal.fold()
    assert last == journal.records[-1]
    assert journal.fold(Moment(seq=last.seq))[0] == whole
    for record in journal.records[::25]:
        states, until = journal.fold(Moment(seq=record.seq))
        assert until == record
        by_time, _ = journal.fold(Moment(at=record.at))
        same_time = [r for r in journal.records if r.at <= record.at][-1]
        assert by_time == journal.fold(Moment(seq=same_time.seq))[0]
        assert states.actors()


def test_the_steps_are_all_that_changes_and_nothing_else() -> None:
    journal = SavedJournal.read(LINES)
    seen: dict[str, dict[str, object]] = {}
    for record, changes in journal.steps():
        state = seen.setdefault(record.actor, {})
        for place, (was, now) in changes.items():
            assert state.get(place) == was, (record, place)
            state[place] = now
    whole, _ = journal.fold()
    m0 = whole.instance("m0")
    assert m0 is not None
    assert (seen["m0"]["phase"], seen["m0"]["run"]) == (m0.phase.value, m0.run)
    assert {
        place for place, value in seen["broker"].items() if value and place.startswith("leases")
    } or not whole.broker().leases
    assert any(
        "waiting." in place for _, changes in journal.steps() for place in changes
    )  # a request that waits is a place


def test_stepping_begins_after_a_moment() -> None:
    journal = SavedJournal.read(LINES)
    middle = journal.records[100]
    (first, changes), *rest = journal.steps(Moment(seq=middle.seq))
    assert (first, len(rest)) == (journal.records[101], len(journal.records) - 102)
    all_of_it = {record.seq: changed for record, changed in journal.steps()}
    assert changes == all_of_it[first.seq]
