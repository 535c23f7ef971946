"""The numbers behind /metrics are a fold of the journal: what each record adds, and laws that hold over whole histories."""

import pytest

from tests.simulation.world import World
from vllama.actors.core import broker_events as bk
from vllama.actors.core import events as ev
from vllama.actors.core import messages as msg
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.messages import Phase, Refusal
from vllama.actors.core.state import BROKER
from vllama.actors.record import Record
from vllama.actors.tally import Histogram, Tally
from vllama.actors.tally.books import books
from vllama.actors.tally.numbers import NAMES


def told(*story: tuple[float, str, object]) -> Tally:
    """A tally after these: (time, actor, event)."""
    tally = Tally()
    for number, (at, actor, event) in enumerate(story, 1):
        tally.push(Record(number, at, actor, ("Test", 0), event))
    return tally


CREATED = ev.InstanceCreated("m", msg.Policy(), msg.Need(1, 1))


def test_each_wait_is_counted_by_what_came_of_it() -> None:
    refusal = Refusal("no_memory", "no")
    tally = told(
        (0, "m", CREATED),
        *((1, "m", ev.AskQueued(ask)) for ask in (1, 2, 3)),
        (3, "m", ev.AskAdmitted(1, 3, "cold")),
        (4, "m", ev.AskEnded(2, 4)),
        (5, "m", ev.AskRefused(3, refusal)),
        (6, "m", ev.AskAdmitted(4, 6)),
        (7, "m", ev.AskEnded(4, 7)),
        (8, "m", ev.AskRefused(5, refusal)),
    )
    seen = {
        outcome: (histogram.count, histogram.sum) for (_, outcome), histogram in tally.all_waits().items()
    }
    assert seen == {"cold": (1, 2.0), "left": (1, 3.0), "refused": (2, 4.0), "warm": (1, 0.0)}
    assert tally.refusals == {("m", "no_memory"): 2}
    assert tally.asked == {}


def test_time_is_counted_in_the_phase_in_which_it_was_spent() -> None:
    tally = told(
        (10, "m", CREATED),
        (11, "m", ev.PhaseChanged(Phase.QUEUED, 11)),
        (13, "m", ev.PhaseChanged(Phase.STARTING, 13)),
        (20, "m", ev.PhaseChanged(Phase.AWAKE, 20)),
    )
    assert tally.phase_seconds(25) == {
        ("m", "stopped"): 1,
        ("m", "queued"): 2,
        ("m", "starting"): 7,
        ("m", "awake"): 5,
    }
    assert tally.awake() == {"m"}
    assert tally.rises["m", "cold"].sum == 7


def test_a_fault_and_the_exit_that_follows_are_one_failure() -> None:
    starting = (0, "m", CREATED), (1, "m", ev.PhaseChanged(Phase.STARTING, 1)), (1, "m", ev.EngineSpawned(1))
    gone = ev.EngineGone(1, -9, "killed", "", expected=False)
    assert told(*starting, (2, "m", ev.EngineFaulted(1, "late")), (3, "m", gone)).failures == {
        ("m", "start"): 1
    }
    assert told(*starting, (3, "m", gone)).failures == {("m", "start"): 1}
    awake = (2, "m", ev.PhaseChanged(Phase.AWAKE, 2))
    assert told(*starting, awake, (3, "m", gone)).failures == {("m", "serving"): 1}
    stopped = ev.EngineGone(1, 0, "", "", expected=True)
    assert told(*starting, awake, (3, "m", stopped)).failures == {}


def test_a_bug_refuses_all_who_wait() -> None:
    tally = told(
        (0, "m", CREATED),
        (1, "m", ev.AskQueued(1)),
        (1, "n", ev.AskQueued(2)),
        (4, "m", ev.InstanceReset("bug")),
    )
    assert tally.failures == {("m", "bug"): 1}
    assert tally.waits["m", "refused"].sum == 3
    assert list(tally.asked) == [2]


def test_evictions_by_what_the_victim_was_doing() -> None:
    def order(model: str, in_flight: int) -> bk.EvictionOrdered:
        return bk.EvictionOrdered(model, 1, 2, "big", 1, ((model, 0.0, in_flight),), 1.0)

    tally = told(
        (0, "a", CREATED),
        (0, "c", CREATED),
        (0, "c", ev.PhaseChanged(Phase.ASLEEP, 0)),
        (1, BROKER, order("a", 0)),
        (1, BROKER, order("b", 2)),
        (1, BROKER, order("c", 0)),
        (2, BROKER, bk.EvictionCancelled("b", 1)),
    )
    assert tally.evictions == {("a", "idle"): 1, ("b", "busy"): 1, ("c", "asleep"): 1}
    assert tally.caused == {"big": 3}
    assert tally.cancelled == {"b": 1}


def test_a_way_down_is_counted_once_however_often_its_end_changes() -> None:
    tally = told(
        (0, "m", CREATED),
        (1, "m", ev.DescentSet(1, "idle")),
        (2, "m", ev.DescentSet(3, "idle")),
        (3, "m", ev.DescentCleared()),
        (4, "m", ev.DescentSet(2, "evict", evict=True)),
    )
    assert tally.descents == {("m", "idle"): 1, ("m", "evict"): 1}


def test_a_histogram_is_cumulative_and_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 3.0):
        histogram.observe(value)
    assert histogram.buckets() == [("1.0", 2), ("2.0", 3), ("+Inf", 4)]
    assert (histogram.count, histogram.sum) == (4, 6.0)
    twin = histogram.copy()
    histogram.add([1, 0, 0], 0.25)
    assert (twin.count, histogram.count, histogram.sum) == (4, 5, 6.25)


class Everything:
    """A reader that keeps what the journal's rings forget."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def push(self, record: Record) -> None:
        self.records.append(record)


@pytest.mark.parametrize("seed", range(12))
def test_over_whole_histories_nothing_is_lost(seed: int) -> None:
    """All time since an instance began is in some phase, each way up and down is known, the books of a device are whole."""
    world, all_of_it = World(seed), Everything()
    tally = world.journal.tally
    for record in world.journal.records():
        all_of_it.push(record)
    world.journal.attach(all_of_it)
    world.run()
    records = all_of_it.records
    now = records[-1].at
    begun = {r.actor: r.at for r in records if isinstance(r.event, ev.InstanceCreated)}
    seconds = tally.phase_seconds(now)
    for model, at in begun.items():
        spent = sum(value for (of, _), value in seconds.items() if of == model)
        assert spent == pytest.approx(now - at)
        state = world.journal.states.instance(model)
        assert state is not None
        assert tally.phases[model][0] is state.phase
    asks = {
        r.event.ask for r in records if isinstance(r.event, ev.AskQueued | ev.AskAdmitted | ev.AskRefused)
    }
    assert sum(h.count for h in tally.all_waits().values()) + len(tally.asked) == len(asks)
    look = books(world.journal.states.broker())
    for device, total in look.totals:
        assert sum(size for of, _, size in look.devices if of == device) == total


def test_a_copy_is_of_every_number() -> None:
    tally = Tally()
    assert set(vars(tally) if hasattr(tally, "__dict__") else NAMES) == set(NAMES)
    tally.warm["m"] += 1
    copy = tally.copy()
    tally.warm["m"] += 1
    assert (copy.warm, tally.warm) == ({"m": 1}, {"m": 2})


def test_books_of_nothing_are_empty() -> None:
    look = books(BrokerState())
    assert (look.devices, look.models, look.oldest_wait_since) == ([], [], None)
