"""A caller's own idle time: over the policy's, until another one, until the engine sleeps or ends."""

import pytest

from tests.actors.play import Story, play, to_broker
from tests.actors.test_instance import asleep, awake, fresh, lease, slot, starting
from vllama.actors.core import effects as fx
from vllama.actors.core import messages as msg
from vllama.actors.core.batches import BatchBack, Lend, Recall, Report
from vllama.actors.core.keep import FOREVER, KeepAlive
from vllama.actors.core.messages import Phase


def down(number: int) -> list[fx.TellBroker]:
    return to_broker(slot(number, "down"))


def test_a_shorter_time_is_counted_from_the_last_use() -> None:
    story = awake()
    story.later(20) >> KeepAlive(60) << fx.SetTimer(2, 40.0)
    story.later(40) >> msg.TimerDue(2) << down(2)
    assert story.state.descent is not None
    assert (story.state.descent.why, story.state.descent.level) == ("idle", 2)


def test_one_that_is_over_already_rings_at_once() -> None:
    awake().later(100) >> KeepAlive(60) << fx.SetTimer(2, 0.0)


def test_for_ever_is_for_ever_until_another_says_otherwise() -> None:
    story = awake()
    story >> KeepAlive(-5) << None
    assert story.state.idle_after_s() is None
    story.later(1800) >> msg.TimerDue(1) << None
    story.later(1e6) >> KeepAlive(10) << fx.SetTimer(2, 0.0)
    story >> msg.TimerDue(2) << down(2)


def test_the_same_once_more_is_void() -> None:
    """Clients send it with each request: the journal has it once."""
    story = awake()
    story >> KeepAlive(60) << fx.SetTimer(2, 60.0)
    story.later(10) >> KeepAlive(60) << None
    story >> KeepAlive(FOREVER) << None
    story >> KeepAlive(-7) << None


def test_at_zero_an_idle_one_sleeps_at_once() -> None:
    awake() >> KeepAlive(0) << down(2)


def test_at_zero_a_busy_one_sleeps_with_its_last_request() -> None:
    story = awake()
    (story >> msg.Acquire(2)).skip()
    (story >> msg.Acquire(3)).skip()
    story >> KeepAlive(0) << None
    story.later(1800) >> msg.TimerDue(1) << None
    story >> msg.Release(2) << None
    story >> msg.Release(3) << down(2)


def test_the_broker_hears_that_it_is_idle_first() -> None:
    story = awake()
    story >> msg.WatchUse(1, on=True) << None
    (story >> msg.Acquire(2)).skip()
    story >> KeepAlive(0) << None
    story >> msg.Release(2) << to_broker(msg.Idle("m", 1, 1000.0), slot(2, "down"))


def test_it_is_over_with_the_sleep() -> None:
    story = awake()
    story >> KeepAlive(0) << down(2)
    story >> msg.SlotGranted(2) << fx.SleepEngine(1, 2, 80)
    (story >> msg.EngineAsleep(1, 2, 20, 60)).skip()
    assert story.state.phase is Phase.ASLEEP
    assert story.state.idle_after_s() == story.state.policy.unload_timeout


def test_it_is_over_with_the_engine() -> None:
    story = awake()
    story >> KeepAlive(FOREVER) << None
    (story >> msg.EngineExited(1, -9)).skip()
    assert story.state.keep_s is None


def test_the_early_sleep_of_a_level_1_model_does_not_end_it() -> None:
    story = awake(play(fresh(sleep_level=1)), first_look_s=5.0)
    story >> KeepAlive(FOREVER) << None
    story.later(5) >> msg.TimerDue(1) << down(2)
    story >> msg.SlotGranted(2) << fx.SleepEngine(1, 1, 80)
    (story >> msg.EngineAsleep(1, 1, 20, 60)).skip()
    assert story.state.keep_s == FOREVER


@pytest.mark.parametrize("story", [play(fresh()), asleep()], ids=["stopped", "asleep"])
def test_it_wakes_nothing_and_is_not_kept_for_later(story: Story) -> None:
    story >> KeepAlive(60) << None
    assert story.state.keep_s is None


def test_said_while_it_starts_it_holds_from_then_on() -> None:
    story = starting()
    story >> KeepAlive(0) << None
    story >> msg.Release(1) << None  # who waited has left: the start goes on
    wants = [fx.TellBroker(msg.ReturnSlot("m", 1)), fx.Weigh(1), fx.SetTimer(1, 0.0)]
    story >> msg.EngineReady(1) << wants
    story >> msg.TimerDue(1) << down(2)


def test_while_requests_run_a_short_time_does_not_ring_all_the_while() -> None:
    story = awake()
    (story >> msg.Acquire(2)).skip()
    story >> KeepAlive(0.01) << fx.SetTimer(2, 0.01)
    story.later(0.01) >> msg.TimerDue(2) << fx.SetTimer(3, 1.0)


def test_a_change_of_the_entry_does_not_touch_it() -> None:
    story = awake()
    story >> KeepAlive(60) << fx.SetTimer(2, 60.0)
    story >> msg.Configure(msg.Policy(unload_timeout=5.0), story.state.need) << None
    assert story.state.idle_after_s() == 60


def test_what_a_worker_has_out_is_recalled_first() -> None:
    story = awake()
    (story >> Lend(100, 4)).skip()
    story >> KeepAlive(0) << Recall((100,))
    story >> BatchBack(100) << down(2)


def test_a_workers_last_request_is_the_last_one_too() -> None:
    story = awake()
    (story >> Lend(100, 4)).skip()
    (story >> msg.Acquire(2)).skip()
    story >> KeepAlive(0) << None
    (story >> Report(((100, "r"),), ())).skip()
    story >> msg.Release(2) << None
    story >> Report((), (100,)) << Recall((100,))
    story >> BatchBack(100) << down(2)


def test_the_last_request_of_our_own_recalls_too() -> None:
    story = awake()
    (story >> Lend(100, 4)).skip()
    (story >> msg.Acquire(2)).skip()
    story >> KeepAlive(0) << None
    story >> msg.Release(2) << Recall((100,))
    story >> BatchBack(100) << down(2)


def test_who_comes_while_it_goes_down_is_served_after() -> None:
    story = awake()
    story >> KeepAlive(0) << down(2)
    story >> msg.Acquire(2) << None
    story >> msg.SlotGranted(2) << fx.SleepEngine(1, 2, 80)
    returned = to_broker(msg.ReturnLease("m", 1, 20, 1000.0), msg.ReturnSlot("m", 2))
    story >> msg.EngineAsleep(1, 2, 20, 60) << [*returned, *to_broker(lease(2, 80, is_fresh=False))]
