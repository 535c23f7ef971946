"""Stories of tickets handed out in batches: the instance that lends, the worker's purse, the system's ledger."""

import pytest

from tests.actors.play import Story, to_broker
from tests.actors.test_instance import DEV, awake, fresh, slot, starting
from vllama.actors.core import effects as fx
from vllama.actors.core import events as ev
from vllama.actors.core import messages as msg
from vllama.actors.core.batches import BatchBack, GiveBatch, Lend, Recall, Report
from vllama.actors.core.instance import decide
from vllama.actors.core.instance_state import State
from vllama.actors.core.ledger import Ledger, LedgerBroken
from vllama.actors.core.messages import Phase
from vllama.actors.core.purse import Batch, Purse


def lent() -> Story:
    """Awake, and a worker may admit ten requests."""
    return awake() >> Lend(100, 10) << GiveBatch(100, 10, 1)


# --- the instance


def test_only_what_is_awake_lends() -> None:
    starting() >> Lend(100, 10) << GiveBatch(100, 0, 1)
    story = lent()
    story >> msg.Stop(7) << Recall((100,))
    story >> Lend(200, 10) << GiveBatch(200, 0, 1)
    assert story.state.lent == {100: 10}


def test_an_unused_batch_is_not_in_flight_and_a_used_ticket_is() -> None:
    story = lent()
    assert not story.state.serving
    story >> Report(((100, "a"), (101, "b")), ()) << None
    story >> Report(((102, "c"),), (100, 102)) << None
    assert list(story.state.serving) == [101]


def test_a_drain_recalls_and_sleeps_only_when_all_is_back() -> None:
    story = lent()
    story >> msg.Evict(1, 2) << Recall((100,))
    story >> Report(((100, "late"),), ()) << None
    story >> BatchBack(100) << None
    story >> Report((), (100,)) << to_broker(slot(2, "down"))
    story >> msg.SlotGranted(2) << fx.SleepEngine(1, 2, 80)


def test_a_drain_whose_requests_end_first_waits_for_the_batch() -> None:
    story = lent()
    story >> Report(((100, "a"),), ()) << None
    story >> msg.Sleep(7, 2) << Recall((100,))
    story >> Report((), (100,)) << None
    story >> BatchBack(100) << to_broker(slot(2, "down"))


def test_a_ticket_of_its_own_keeps_a_drain_as_before() -> None:
    story = lent()
    story >> msg.Acquire(5) << fx.Admit(5, 1, "warm")
    story >> msg.Evict(1, 2) << Recall((100,))
    story >> BatchBack(100) << None
    story >> msg.Release(5) << to_broker(slot(2, "down"))


def test_an_idle_model_recalls_before_it_sleeps() -> None:
    story = lent().later(2000)
    story >> msg.TimerDue(1) << Recall((100,))
    assert story.state.phase is Phase.DRAINING
    story >> BatchBack(100) << to_broker(slot(2, "down"))


def test_a_forced_sleep_cuts_off_what_is_not_reported_too() -> None:
    story = lent()
    story >> Report(((100, "a"),), ()) << None
    story >> msg.Sleep(7, 2, force=True) << [fx.Abort((100,), "sleep --force", (100,)), Recall((100,))]


def test_a_drain_called_off_lends_again_and_takes_the_old_batch_back() -> None:
    story = lent()
    story >> Report(((100, "a"),), ()) << None
    story >> msg.Sleep(7, 2) << Recall((100,))
    story >> msg.Start(8)
    assert story.state.phase is Phase.AWAKE
    story.skip() >> Lend(200, 10) << GiveBatch(200, 10, 1)
    story >> Report(((101, "b"),), ()) << None
    story >> BatchBack(100) << None
    assert list(story.state.serving) == [100, 101]
    assert story.state.lent == {200: 10}


def test_the_end_of_the_engine_voids_its_batches_and_late_admissions_are_on_record() -> None:
    story = lent()
    story >> Report(((100, "a"),), ()) << None
    story >> msg.EngineExited(1, -9, "", "")
    assert Recall((100,)) in (story._todo or [])
    story.skip()
    assert not story.state.lent
    assert not story.state.serving
    events, effects = decide(story.state, Report(((101, "late"),), (101,)), story.now)
    assert [type(event) for event in events] == [ev.AskRefused]
    assert not effects
    story >> BatchBack(100) << None


def test_a_deaf_engine_recalls_at_once() -> None:
    lent() >> msg.EngineUnreachable(1) << [fx.Kill(1), Recall((100,))]


def test_the_broker_that_watches_hears_of_busy_and_idle() -> None:
    story = lent()
    story >> msg.WatchUse(1, on=True) << None
    story >> Report(((100, "a"),), (100,)) << None
    story >> Report(((101, "a"), (102, "b")), ()) << to_broker(msg.Busy("m", 1))
    story >> Report((), (101,)) << None
    story >> Report((), (102,)) << to_broker(msg.Idle("m", 1, story.now))


def test_a_shutdown_recalls() -> None:
    lent() >> msg.Shutdown() << [fx.StopEngine(1), Recall((100,))]


def test_state_with_batches_survives_a_copy() -> None:
    state = fresh()
    state.lent[5] = 3
    twin = state.copy()
    twin.lent.clear()
    assert state.lent == {5: 3}
    assert State().lent == {}
    assert DEV


# --- the worker's purse


def purse(*batches: tuple[int, int], model: str = "m") -> Purse:
    made = Purse()
    for number, count in batches:
        made.put(Batch(number, model, 1, 33300, count))
    return made


def test_tickets_are_taken_in_order_and_once() -> None:
    held = purse((100, 2), (200, 1))
    assert [taken[0] for _ in range(4) if (taken := held.take("m", "r"))] == [100, 101, 200]
    assert held.take("other", "r") is None
    assert held.report() == ([(100, ["r", "r"]), (200, ["r"])], [])
    assert held.report() == ([], [])
    assert not held.untold


def test_nothing_is_taken_of_a_recalled_batch_and_what_was_taken_is_told() -> None:
    held = purse((100, 5))
    assert held.take("m", "a")
    held.recall(100)
    held.recall(100)
    assert held.take("m", "b") is None
    held.end(100)
    assert held.report() == ([(100, ["a"])], [100])
    assert held.held() == ()


def test_a_dead_engine_admits_no_more_and_its_batch_can_still_be_recalled() -> None:
    held = purse((100, 5))
    held.drop("m", 1)
    assert held.take("m", "a") is None
    assert held.held() == (100,)
    held.recall(100)
    assert held.held() == ()


# --- the system's ledger


def test_reports_become_messages_by_model_and_a_used_batch_is_back() -> None:
    book = Ledger()
    book.lend(100, "m", 2)
    book.lend(200, "n", 5)
    told = book.report([(100, ["a", "b"]), (200, ["c"])], [100])
    assert told == [
        ("m", Report(((100, "a"), (101, "b")), (100,))),
        ("n", Report(((200, "c"),), ())),
        ("m", BatchBack(100)),
    ]
    assert (book.unused("m"), book.unused("n")) == (0, 4)
    assert book.out == {101: "m", 200: "n"}
    assert book.spans([100, 200]) == ((200, 5),)


def test_a_dead_workers_tickets_are_given_back_in_its_place() -> None:
    book = Ledger()
    book.lend(100, "m", 3)
    book.report([(100, ["a", "b"])], [])
    assert book.died() == [("m", Report((), (100, 101))), ("m", BatchBack(100))]
    assert book.died() == []
    assert book.unused("m") == 0


@pytest.mark.parametrize(
    ("used", "ended"),
    [([(100, ["a", "b", "c"])], []), ([(300, ["a"])], []), ([], [100]), ([(100, ["a"])], [100, 100])],
    ids=["more than it has", "a batch it has not", "an end without a beginning", "an end twice"],
)
def test_a_worker_is_held_to_what_it_was_given(used: list, ended: list) -> None:
    book = Ledger()
    book.lend(100, "m", 2)
    with pytest.raises(LedgerBroken):
        book.report(used, ended)
