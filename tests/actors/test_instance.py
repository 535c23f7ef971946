"""Stories of one instance: what each phase makes of each message (protocol.md 5)."""

import pytest

from tests.actors.play import Story, play, to_broker
from vllama.actors.core import effects as fx
from vllama.actors.core import messages as msg
from vllama.actors.core.instance import decide
from vllama.actors.core.instance_state import State
from vllama.actors.core.messages import Phase

DEV = ("cpu",)
NEED = msg.Need(100, 60)
OUT = "the last lines"


def fresh(**policy: object) -> State:
    return State(model="m", need=NEED, policy=msg.Policy(**policy))  # type: ignore[arg-type]


def lease(number: int, size: int = 100, *, is_fresh: bool = True) -> msg.RequestLease:
    launched = 0 if is_fresh else 100
    return msg.RequestLease("m", number, size, 60, () if is_fresh else DEV, is_fresh, launched_bytes=launched)


def slot(number: int, kind: str) -> msg.RequestSlot:
    return msg.RequestSlot("m", number, kind, DEV)  # type: ignore[arg-type]


def starting(story: Story | None = None) -> Story:
    story = story or play(fresh())
    story >> msg.Acquire(1) << to_broker(lease(1))
    story >> msg.LeaseGranted(1, 100, DEV) << to_broker(slot(1, "start"))
    story >> msg.SlotGranted(1) << fx.Launch(1, 100, DEV)
    return story >> msg.EngineLaunched(1, 7, 33300, "log", "fork", "") << fx.AwaitReady(1)


def awake(story: Story | None = None, first_look_s: float = 0.0) -> Story:
    """One request served and gone."""
    story = starting(story)
    ready = [
        fx.TellBroker(msg.ReturnSlot("m", 1)),
        fx.Admit(1, 1, "cold"),
        fx.Weigh(1),
        fx.SetTimer(1, first_look_s or story.state.policy.unload_timeout),
    ]
    story >> msg.EngineReady(1) << ready
    story >> msg.EngineWeighed(1, 80) << None
    return story >> msg.Release(1) << None


def asleep(story: Story | None = None, level: int = 2) -> Story:
    story = awake(story)
    story >> msg.Evict(1, level) << to_broker(slot(2, "down"))
    story >> msg.SlotGranted(2) << fx.SleepEngine(1, level, 80)
    returned = to_broker(msg.ReturnLease("m", 1, 20, story.state.last_used), msg.ReturnSlot("m", 2))
    story >> msg.EngineAsleep(1, level, 20, 60) << [*returned, fx.SetTimer(2, 6 * 3600.0)]
    assert story.state.phase is Phase.ASLEEP
    return story


def test_a_sleeper_tells_the_broker_of_its_pin() -> None:
    story = awake(play(fresh(pinned=True)))
    story >> msg.Sleep(1, 2) << to_broker(slot(2, "down"))
    story >> msg.SlotGranted(2) << fx.SleepEngine(1, 2, 80)
    story >> msg.EngineAsleep(1, 2, 20, 60)
    back = msg.ReturnLease("m", 1, 20, story.state.last_used, pinned=True)
    assert to_broker(back)[0] in list(story._todo or [])
    story.skip()


def test_cold_start_then_warm() -> None:
    story = awake()
    story >> msg.Acquire(2) << fx.Admit(2, 1, "warm")
    story >> msg.Release(2) << None
    story >> msg.Release(2) << None  # a second release is void


def test_who_comes_while_it_starts_joins() -> None:
    story = starting()
    story >> msg.Acquire(2) << None
    story >> msg.Acquire(3) << None
    story >> msg.Release(2) << None
    story >> msg.EngineReady(1)
    assert list(story.state.serving) == [1, 3]


def test_the_last_waiter_that_leaves_takes_the_request_for_memory_along() -> None:
    story = play(fresh())
    story >> msg.Acquire(1) << to_broker(lease(1))
    story >> msg.Acquire(2) << None
    story >> msg.Release(1) << None
    story >> msg.Release(2) << to_broker(msg.ReturnLease("m", 1, 0, 0.0))
    assert story.state.phase is Phase.STOPPED
    story >> msg.LeaseGranted(1, 100, DEV) << None  # it crossed: void


def test_drains_before_it_sleeps_and_wakes_for_who_came_meanwhile() -> None:
    story = awake()
    story >> msg.Acquire(2) << fx.Admit(2, 1, "warm")
    story >> msg.Evict(1, 2) << None
    story >> msg.Acquire(3) << None  # draining admits nothing
    story >> msg.Release(2) << to_broker(slot(2, "down"))
    story >> msg.SlotGranted(2) << fx.SleepEngine(1, 2, 80)
    again = lease(2, 80, is_fresh=False)
    back = to_broker(msg.ReturnLease("m", 1, 20, story.now), msg.ReturnSlot("m", 2), again)
    story >> msg.EngineAsleep(1, 2, 20, 60) << back
    story >> msg.LeaseGranted(2, 80, DEV) << to_broker(slot(3, "wake"))
    story >> msg.SlotGranted(3) << fx.WakeEngine(1, 2, 80)
    story >> msg.EngineReady(1)
    assert list(story.state.serving) == [3]


def test_cancelled_eviction_admits_again() -> None:
    story = awake()
    story >> msg.Acquire(2) << fx.Admit(2, 1, "warm")
    story >> msg.Evict(1, 2) << None
    story >> msg.Acquire(3) << None
    story >> msg.CancelEvict(1) << [fx.Admit(3, 1, "wake"), fx.SetTimer(2, 1800.0)]
    assert story.state.phase is Phase.AWAKE


def test_sleeper_is_stopped_when_its_residue_is_in_the_way() -> None:
    story = asleep()
    story >> msg.Evict(1, 3) << to_broker(slot(3, "down"))
    story >> msg.Acquire(2) << None  # waits for the stop, then starts anew
    story >> msg.SlotGranted(3) << fx.StopEngine(1)
    gone = to_broker(msg.ReturnSlot("m", 3), msg.ReturnLease("m", 1, 0, 1000.0), lease(2, 100))
    story >> msg.EngineExited(1, 0) << gone


def test_evicting_a_sleeper_that_waits_for_its_wake_makes_it_a_start() -> None:
    story = asleep()
    story >> msg.Acquire(2) << to_broker(lease(2, 80, is_fresh=False))
    story >> msg.Evict(1, 3) << to_broker(msg.ReturnLease("m", 2, 0, 1000.0), slot(3, "down"))
    assert story.state.phase is Phase.ASLEEP
    assert list(story.state.waiting) == [2]


def test_level_1_cannot_become_level_2_and_the_command_says_so() -> None:
    story = asleep(level=1)
    story >> msg.Sleep(9, 2) << to_broker(slot(3, "down"))
    story >> msg.SlotGranted(3) << fx.StopEngine(1)
    story >> msg.EngineExited(1, 0)
    reply = next(effect for effect in story._todo or [] if isinstance(effect, fx.Reply))
    assert reply.phase == "stopped"
    assert "in place" in reply.note


def test_failed_wake_is_killed_never_retried_on_the_same_process() -> None:
    story = asleep()
    story >> msg.Acquire(2) << to_broker(lease(2, 80, is_fresh=False))
    story >> msg.LeaseGranted(2, 80, DEV) << to_broker(slot(3, "wake"))
    story >> msg.SlotGranted(3) << fx.WakeEngine(1, 2, 80)
    story >> msg.EngineUnready(1, "probe mismatch") << fx.Kill(1)
    story >> msg.EngineExited(1, -9)
    assert story.state.phase is Phase.QUEUED  # one automatic restart for who waits
    assert list(story.state.waiting) == [2]
    assert not story.state.alive


def test_start_that_dies_twice_is_refused_with_the_logs_last_lines() -> None:
    story = starting()
    story >> msg.EngineExited(1, 1, "", OUT)
    story.skip() >> msg.LeaseGranted(2, 100, DEV) << to_broker(slot(2, "start"))
    story >> msg.SlotGranted(2) << fx.Launch(2, 100, DEV)
    story >> msg.EngineExited(2, 1, "", OUT)
    refused = next(effect for effect in story._todo or [] if isinstance(effect, fx.Refuse))
    assert refused.refusal.code == "start_failed"
    assert OUT in refused.refusal.message
    assert "could not be started" in refused.refusal.message
    story.skip() >> msg.Acquire(2)  # in back-off: refused at once, with Retry-After
    refused = next(effect for effect in story._todo or [] if isinstance(effect, fx.Refuse))
    assert refused.refusal.retry_after_s
    assert "in 2 s or later" in refused.refusal.message
    story.later(10).skip() >> msg.Acquire(3) << to_broker(lease(3))


def test_who_comes_after_a_fault_of_a_running_engine_is_told_of_that_fault() -> None:
    story = play(fresh())
    for run in (1, 2):
        if run == 1:
            awake(story)
        else:
            story >> msg.Acquire(9)
            story.skip() >> msg.LeaseGranted(2, 100, DEV)
            story.skip() >> msg.SlotGranted(3)
            story.skip() >> msg.EngineLaunched(2, 7, 33300, "log", "fork", "")
            story.skip() >> msg.EngineReady(2)
            story.skip() >> msg.Release(9)
        story.skip() >> msg.Evict(run, 2)
        story.skip() >> msg.SlotGranted(2 * run)
        story.skip() >> msg.SleepFailed(run, "no answer to POST /sleep") << fx.Kill(run)
        story >> msg.EngineExited(run, -9)
        story.skip()
    story >> msg.Acquire(10)
    (refused,) = [effect for effect in story._todo or [] if isinstance(effect, fx.Refuse)]
    text = refused.refusal.message
    assert "could not be started" not in text
    assert "its engine failed after it had been up" in text
    assert "A request in 2 s or later starts it again. What happened: no answer to POST /sleep" in text
    story.skip()


def test_third_failure_is_failed_until_a_command_clears_it() -> None:
    story = starting()
    for run in (1, 2, 3):
        story >> msg.EngineExited(run, 1)
        story.skip().later(30)
        if story.state.phase is Phase.STOPPED:
            story >> msg.Acquire(10 + run)
            story.skip()
        if run < 3:
            story >> msg.LeaseGranted(run + 1, 100, DEV)
            story.skip() >> msg.SlotGranted(run + 1)
            story.skip()
    assert story.state.phase is Phase.FAILED
    story >> msg.Acquire(20)
    story.skip() >> msg.Stop(30) << fx.Reply(30, "stopped", 0)
    assert story.state.phase is Phase.STOPPED


@pytest.mark.parametrize("why", ["port", "profiling"])
def test_lost_port_or_disturbed_profiling_is_tried_once_more_outside_back_off(why: str) -> None:
    story = starting()
    story >> msg.EngineExited(1, 1, why)
    story.skip()
    assert story.state.phase is Phase.QUEUED
    assert story.state.failures == ()


def test_start_that_runs_out_of_memory_asks_for_one_more_victim_and_is_no_failure() -> None:
    story = starting()
    story >> msg.EngineExited(1, 1, "oom", OUT)
    squeeze = msg.RequestLease("m", 2, 100, 60, (), fresh=True, squeeze=True)
    back = to_broker(msg.ReturnSlot("m", 1), msg.ReturnLease("m", 1, 0, 0.0), squeeze)
    story << back
    assert story.state.failures == ()
    refusal = msg.Refusal("no_memory", "none left", 10.0)
    story >> msg.LeaseRefused(2, refusal) << fx.Refuse(1, refusal)


def test_exit_of_a_healthy_engine_is_started_again_by_the_next_request() -> None:
    story = awake()
    story >> msg.EngineExited(1, -9, "", OUT) << to_broker(msg.ReturnLease("m", 1, 0, 1000.0))
    assert story.state.phase is Phase.STOPPED
    story >> msg.Acquire(2) << to_broker(lease(2))


def test_stop_kills_a_start_and_refuses_who_waits() -> None:
    story = starting()
    story >> msg.Stop(9)
    assert [type(effect) for effect in story._todo or []] == [fx.Refuse, fx.Kill]
    story.skip() >> msg.EngineExited(1, -9)
    assert fx.Reply(9, "stopped", 0) in (story._todo or [])


def test_start_cancels_a_commands_drain_and_overtakes_it() -> None:
    story = awake()
    story >> msg.Acquire(2) << fx.Admit(2, 1, "warm")
    story >> msg.Sleep(8, 2) << None
    story >> msg.Start(9)
    replies = [effect for effect in story._todo or [] if isinstance(effect, fx.Reply)]
    assert [(r.command, r.refusal.code if r.refusal else "") for r in replies] == [(8, "overtaken"), (9, "")]
    assert story.state.phase is Phase.AWAKE


def test_forced_sleep_aborts_what_is_in_flight() -> None:
    story = awake()
    story >> msg.Acquire(2) << fx.Admit(2, 1, "warm")
    story >> msg.Sleep(8, 2, force=True) << fx.Abort((2,), "sleep --force")


def test_idle_timer_is_looked_at_lazily() -> None:
    story = awake(play(fresh(unload_timeout=100.0)))
    story.later(60)
    story >> msg.Acquire(2) << fx.Admit(2, 1, "warm")
    story >> msg.Release(2) << None
    story.later(40) >> msg.TimerDue(1)  # used meanwhile: armed again for what is left
    again = (story._todo or [])[0]
    assert isinstance(again, fx.SetTimer)
    assert again.delay_s == pytest.approx(60.0, abs=0.01)
    story.skip().later(60) >> msg.TimerDue(2) << to_broker(slot(2, "down"))


def test_level_1_model_pins_its_host_ram_at_the_first_idle_moment() -> None:
    story = awake(play(fresh(sleep_level=1, pin_idle_s=5.0, unload_timeout=100.0)), first_look_s=5.0)
    story.later(5) >> msg.TimerDue(1) << to_broker(slot(2, "down"))
    story >> msg.SlotGranted(2) << fx.SleepEngine(1, 1, 80)
    again = lease(2, 80, is_fresh=False)
    back = to_broker(msg.ReturnLease("m", 1, 20, 1000.0), msg.ReturnSlot("m", 2), again)
    story >> msg.Acquire(5) << None  # arrives meanwhile: waits
    story >> msg.EngineAsleep(1, 1, 20, 60) << back
    story >> msg.LeaseGranted(2, 80, DEV) << to_broker(slot(3, "wake"))
    story >> msg.SlotGranted(3) << fx.WakeEngine(1, 1, 80)
    story >> msg.EngineReady(1)
    assert fx.SetTimer(2, 100.0) in (story._todo or [])  # once for each run


def test_two_failed_wakes_make_a_level_unsafe_for_the_model() -> None:
    story = asleep()
    story.state.misses[2] = 1
    story >> msg.Acquire(2) << to_broker(lease(2, 80, is_fresh=False))
    story >> msg.LeaseGranted(2, 80, DEV) << to_broker(slot(3, "wake"))
    story >> msg.SlotGranted(3) << fx.WakeEngine(1, 2, 80)
    story >> msg.EngineUnready(1, "probe mismatch") << fx.Kill(1)
    assert story.state.safe_level(2) == 3
    assert story.state.safe_level(1) == 1


def test_sleeper_whose_residue_grows_is_stopped_at_its_next_sleep() -> None:
    story = asleep(play(fresh(residue_growth_max_bytes=10)))
    story.state.residue_first = 5
    story >> msg.Acquire(2) << to_broker(lease(2, 80, is_fresh=False))
    story >> msg.LeaseGranted(2, 80, DEV) << to_broker(slot(3, "wake"))
    story >> msg.SlotGranted(3) << fx.WakeEngine(1, 2, 80)
    story >> msg.EngineReady(1)
    story.skip() >> msg.Release(2) << None
    story >> msg.Evict(2, 2) << to_broker(slot(4, "down"))
    story >> msg.SlotGranted(4) << fx.SleepEngine(1, 2, 80)
    story >> msg.EngineAsleep(1, 2, 40, 40)
    assert story.state.residue_grown
    assert story.state.safe_level(2) == 3


def test_full_queue_is_refused() -> None:
    story = play(fresh(queue_max=1))
    story >> msg.Acquire(1) << to_broker(lease(1))
    story >> msg.Acquire(2)
    refused = (story._todo or [])[0]
    assert isinstance(refused, fx.Refuse)
    assert refused.refusal.code == "queue_full"


def test_late_outcomes_are_void() -> None:
    story = asleep()
    for late in (
        msg.EngineReady(0),
        msg.EngineAsleep(1, 2, 0, 0),
        msg.EngineExited(0, 1),
        msg.SlotGranted(2),
        msg.LeaseGranted(1, 1, DEV),
        msg.Evict(7, 2),
        msg.TimerDue(1),
    ):
        assert decide(story.state, late, story.now) == ([], []), late


def test_grant_of_a_lease_that_was_given_up_is_not_taken_for_the_next() -> None:
    story = play(fresh())
    story >> msg.Acquire(1) << to_broker(lease(1))
    story >> msg.Release(1) << to_broker(msg.ReturnLease("m", 1, 0, 0.0))
    story >> msg.Acquire(2) << to_broker(lease(2))
    story >> msg.LeaseGranted(1, 100, DEV) << None
    story >> msg.LeaseGranted(2, 100, DEV) << to_broker(slot(1, "start"))
    story >> msg.Release(2) << to_broker(msg.ReturnSlot("m", 1), msg.ReturnLease("m", 2, 0, 0.0))
    story >> msg.Acquire(3) << to_broker(lease(3))
    story >> msg.LeaseGranted(3, 100, DEV) << to_broker(slot(2, "start"))
    story >> msg.SlotGranted(1) << None
    story >> msg.SlotGranted(2) << fx.Launch(1, 100, DEV)


def test_outcome_of_a_dead_engines_sleep_is_not_taken_for_the_next_engines() -> None:
    story = awake()
    story >> msg.Evict(1, 2) << to_broker(slot(2, "down"))
    story >> msg.SlotGranted(2) << fx.SleepEngine(1, 2, 80)
    story.state.run = 2  # as if the first engine had died and the second were falling asleep now
    story >> msg.EngineAsleep(1, 2, 20, 60) << None
    story >> msg.SleepFailed(1, "late") << None


def test_watched_instance_tells_when_it_becomes_busy_and_idle() -> None:
    story = awake()
    story >> msg.WatchUse(1, on=True) << None
    story >> msg.Offer(1) << to_broker(msg.Candidate("m", 1, 1000.0, 0, False, 2))
    story >> msg.Acquire(2) << [fx.Admit(2, 1, "warm"), *to_broker(msg.Busy("m", 1))]
    story >> msg.Acquire(3) << fx.Admit(3, 1, "warm")
    story >> msg.Release(2) << None
    story >> msg.Release(3) << to_broker(msg.Idle("m", 1, 1000.0))


def test_decide_only_reads() -> None:
    story = asleep()
    before = story.state.copy()
    decide(story.state, msg.Acquire(5), story.now)
    decide(story.state, msg.Stop(6), story.now)
    assert story.state == before


def test_shutdown_needs_no_slot() -> None:
    story = awake()
    story >> msg.Acquire(2) << fx.Admit(2, 1, "warm")
    story >> msg.Shutdown() << fx.StopEngine(1)
    story >> msg.EngineExited(1, 0) << to_broker(msg.ReturnLease("m", 1, 0, 1000.0))
    assert story.state.phase is Phase.STOPPED
