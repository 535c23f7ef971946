"""Stories of an instance whose entry in models.yaml changes."""

from dataclasses import replace

from tests.actors.play import Story, play, to_broker
from tests.actors.test_instance import DEV, NEED, asleep, awake, fresh, lease, slot, starting
from vllama.actors.core import effects as fx
from vllama.actors.core import messages as msg
from vllama.actors.core.messages import Phase
from vllama.actors.core.state import view

LONGER = (("max_model_len", "b"),)


def change(story: Story, **policy: object) -> msg.Configure:
    s = story.state
    return msg.Configure(replace(s.policy, **policy), msg.Need(50, 30), LONGER)  # type: ignore[arg-type]


def test_an_entry_that_did_not_change_touches_nothing() -> None:
    story = awake()
    before = story.state.copy()
    story >> msg.Configure(before.policy, before.need, before.settings) << None
    assert story.state == before


def test_a_running_engine_goes_on_and_says_that_it_needs_a_restart() -> None:
    story = awake()
    story >> change(story) << None
    assert view(story.state).restart_needed == ("max_model_len",)
    story >> msg.Acquire(2) << fx.Admit(2, 1, "warm")
    story >> msg.Release(2) << None
    story >> msg.Stop(9) << to_broker(slot(2, "down"))
    story >> msg.SlotGranted(2) << fx.StopEngine(1)
    (story >> msg.EngineExited(1, 0)).skip()
    assert view(story.state).restart_needed == ()
    # What was measured was the old configuration: the new one starts with its own estimate.
    story >> msg.Acquire(3) << to_broker(msg.RequestLease("m", 2, 50, 30, (), True))


def test_what_needs_no_restart_says_none() -> None:
    story = awake()
    story >> msg.Configure(replace(story.state.policy, pinned=True), NEED) << None
    assert story.state.policy.pinned
    assert view(story.state).restart_needed == ()


def test_a_sleeper_wakes_as_it_was_and_still_says_so() -> None:
    story = asleep()
    story >> change(story) << None
    story >> msg.Acquire(2) << to_broker(msg.RequestLease("m", 2, 80, 30, DEV, False, launched_bytes=100))
    assert view(story.state).restart_needed == ("max_model_len",)


def test_a_change_clears_failed() -> None:
    story = play(fresh(restarts_max=1))
    story = starting(story)
    (story >> msg.EngineExited(1, 1, "", "out")).skip()
    assert story.state.phase is Phase.FAILED
    story >> change(story) << None
    assert (story.state.phase, story.state.failures, story.state.error) == (Phase.STOPPED, (), "")
    (story >> msg.Acquire(2)).skip()
    assert story.state.phase is Phase.QUEUED


def test_a_change_ends_a_back_off() -> None:
    story = starting(play(fresh()))
    (story >> msg.Release(1)).skip()
    (story >> msg.EngineExited(1, 1, "", "out")).skip()
    assert story.state.not_before > story.now
    story >> change(story) << None
    story >> msg.Acquire(2) << to_broker(msg.RequestLease("m", 2, 50, 30, (), True))


def test_who_waits_for_memory_asks_for_what_is_needed_now() -> None:
    story = play(fresh())
    story >> msg.Acquire(1) << to_broker(lease(1))
    again = msg.RequestLease("m", 2, 50, 30, (), True)
    story >> change(story) << to_broker(msg.ReturnLease("m", 1, 0, 0.0), again)
    story >> msg.LeaseGranted(1, 100, DEV) << None  # it crossed
    story >> msg.LeaseGranted(2, 50, DEV) << to_broker(slot(1, "start"))
    story >> msg.SlotGranted(1) << fx.Launch(1, 50, DEV)
    assert view(story.state).restart_needed == ()


def test_another_idle_timeout_counts_at_once() -> None:
    story = awake()
    story.later(100)
    story >> change(story, unload_timeout=130.0) << fx.SetTimer(2, 30.0)
    story.later(30) >> msg.TimerDue(1) << None
    story >> msg.TimerDue(2) << to_broker(slot(2, "down"))


def test_the_broker_that_watches_hears_of_the_pin() -> None:
    story = awake()
    story >> msg.WatchUse(1, True) << None
    told = msg.Candidate("m", 1, story.state.last_used, 0, True, 2)
    story >> change(story, pinned=True) << to_broker(told)
