"""The journal: bounded rings over base states, folds, readers and gaps, and the way to JSON and back."""

import dataclasses
import json

import pytest

from tests.simulation.world import World
from vllama.actors.codec import EVENTS
from vllama.actors.core import events as ev
from vllama.actors.core import messages as msg
from vllama.actors.journal import SEGMENT, Journal, load, record_json
from vllama.actors.record import Filter, Gap, Record


def journal(lifecycle_max: int = 100, requests_max: int = 50) -> Journal:
    made = Journal(lambda: 1.0, lifecycle_max, requests_max)
    append(made, ev.InstanceCreated("m", msg.Policy(), msg.Need(1, 1)))
    return made


def append(j: Journal, *events: ev.Event) -> None:
    for event in events:
        j.append("m", ("Test", 0), event, 1.0)


def traffic(j: Journal, asks: int, first: int = 1) -> None:
    for ask in range(first, first + asks):
        append(j, ev.AskAdmitted(ask, 1.0), ev.AskEnded(ask, 1.0))


def test_requests_do_not_flush_the_history() -> None:
    j = journal()
    traffic(j, 500)
    gap, records = j.read(0, Filter(kinds=frozenset({"InstanceCreated"})))
    assert gap is None
    assert [type(r.event) for r in records] == [ev.InstanceCreated]


def test_reader_of_requests_gets_a_gap_for_what_has_left_the_ring() -> None:
    j = journal(requests_max=10)
    traffic(j, 20)
    gap, records = j.read(0, Filter())
    assert gap == Gap(1, j.seq - 10)
    assert records[-1].seq == j.seq


@pytest.mark.parametrize("asks", [3, SEGMENT, 3 * SEGMENT])
def test_fold_gives_the_live_state_whatever_has_left_the_rings(asks: int) -> None:
    j = journal(lifecycle_max=100, requests_max=3000)
    for n in range(asks):
        traffic(j, 1, first=2 * n)
        append(j, ev.TimerArmed(n))
    append(j, ev.AskQueued(10**6))
    assert j.fold() == j.states


def test_a_snapshot_copies_only_who_has_changed_and_none_changes_with_the_living() -> None:
    j = journal(lifecycle_max=5 * SEGMENT)
    j.append("still", ("Test", 0), ev.TimerArmed(7), 1.0)
    for n in range(3 * SEGMENT):
        append(j, ev.TimerArmed(n))
    _, *snapshots = (states for _, _, states in j._snapshots)
    assert len({id(states.state("still")) for states in snapshots}) == 1
    assert len({states.instance("m").timer for states in snapshots}) == len(snapshots) == 3
    assert snapshots[0].state("still") is not j.states.state("still")
    j.append("still", ("Test", 0), ev.TimerArmed(8), 1.0)
    for n in range(SEGMENT):
        append(j, ev.TimerArmed(n))
    assert [states.instance("still").timer for _, _, states in list(j._snapshots)[-2:]] == [7, 8]
    assert j.fold() == j.states


def test_fold_is_not_the_live_state_itself() -> None:
    j = journal()
    folded = j.fold()
    append(j, ev.AskQueued(1))
    assert folded != j.states


def test_slow_reader_gets_a_gap_and_then_the_rest() -> None:
    j = journal(lifecycle_max=5000)
    reader = j.subscribe()
    for n in range(1500):
        append(j, ev.TimerArmed(n))
    first = reader.pending()
    assert isinstance(first[-1], Gap)
    assert first[-1].last == j.seq
    append(j, ev.TimerArmed(9))
    assert [item.seq for item in reader.pending() if isinstance(item, Record)] == [j.seq]
    reader.close()


def test_filters_by_actor_and_kind() -> None:
    j = journal()
    append(j, ev.TimerArmed(1))
    j.append("other", ("Test", 0), ev.TimerArmed(2), 1.0)
    reader = j.subscribe(since=0, actor="other", kinds=frozenset({"TimerArmed"}))
    assert [r.event for r in reader.pending() if isinstance(r, Record)] == [ev.TimerArmed(2)]
    reader.close()


def test_no_event_field_hides_a_records_own() -> None:
    for name, kind in EVENTS.items():
        fields = {field.name for field in dataclasses.fields(kind)}
        assert not fields & {"seq", "actor", "cause", "kind"}, name


@pytest.mark.parametrize("seed", range(5))
def test_saved_journal_folds_to_the_same_state(seed: int) -> None:
    world = World(seed)
    world.run()
    lines = [json.loads(json.dumps(line)) for line in world.journal.saved()]
    states, records = load(lines)
    assert states == world.journal.states
    held = {record.seq: record for record in world.journal.records()}
    for record in records:
        assert record.event == held[record.seq].event
        assert record_json(record)["seq"] == record.seq


def test_load_refuses_what_is_no_journal() -> None:
    with pytest.raises(ValueError, match="Snapshot"):
        load([{"kind": "AskQueued", "ask": 1}])
