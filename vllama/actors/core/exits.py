"""An engine's process tree is gone: who is told, and whether it starts again."""

from vllama.actors.core import events as ev
from vllama.actors.core import moves as mv
from vllama.actors.core import refusals
from vllama.actors.core.instance_state import State
from vllama.actors.core.messages import EngineExited, Phase
from vllama.actors.core.moves import Decision, join
from vllama.actors.core.restarts import verdict

ONE_MORE_TRY = ("port", "profiling")  # not the model's fault: tried once more, outside back-off


def exited(s: State, m: EngineExited, now: float) -> Decision:
    """From any phase in which the engine lives."""
    expected = s.phase is Phase.STOPPING and not s.faulted
    gone: Decision = [ev.EngineGone(m.run, m.code, m.why, m.log_tail, expected)], []
    took_s = now - s.since if expected else 0.0
    slot = mv.drop_slot(s, took_s=took_s, level=3)
    returned = join(gone, slot, mv.drop_lease(s), mv.drop_residue(s), mv.drop_copy(s))
    if expected:
        rest = join(mv.move_to(Phase.STOPPED, now), mv.arrive(s, Phase.STOPPED))
        return join(returned, rest, mv.want_lease(s, now, fresh=True) if mv.wanted(s) else mv.VOID)
    was_coming_up = s.phase in (Phase.STARTING, Phase.WAKING)
    if was_coming_up and m.why in ONE_MORE_TRY and m.why not in s.restarts_noted:
        return join(returned, ([ev.RestartNoted(m.why)], []), mv.want_lease(s, now, fresh=True))
    if (
        was_coming_up and m.why == "oom" and mv.wanted(s)
    ):  # not its fault: one more is evicted, or the callers get 503
        tried_in_vain = s.sleep_mode_off == "tried" and not s.can_sleep
        on: Decision = ([ev.SleepModeSet(on=True)], []) if tried_in_vain else mv.VOID
        return join(returned, on, mv.want_lease(s, now, fresh=True, squeeze=True))
    return join(returned, _failed(s, m, now, was_coming_up=was_coming_up))


def _failed(s: State, m: EngineExited, now: float, *, was_coming_up: bool) -> Decision:
    """An exit that nobody asked for is counted; those who wait get one automatic restart, then 502."""
    error = refusals.exit_text(s, m.code, m.why, m.log_tail)
    sentence = verdict(s.failures, now, s.policy, was_ready=s.was_ready)
    counted: Decision = [ev.FailureCounted(now, sentence.not_before, sentence.give_up, error)], []
    note = "the engine died on the way"
    rest = Phase.FAILED if sentence.give_up else Phase.STOPPED
    down = join(counted, mv.move_to(rest, now), mv.arrive(s, rest, note=note))
    once_more = not was_coming_up or "start" not in s.restarts_noted
    if mv.wanted(s) and once_more and not sentence.give_up:
        noted: Decision = ([ev.RestartNoted("start")], []) if was_coming_up else mv.VOID
        return join(down, noted, mv.want_lease(s, now, fresh=True))
    refusal = refusals.start_failed(s, error, sentence.not_before, now, given_up=sentence.give_up)
    return join(down, mv.refuse(s.waiting, refusal), mv.deny(s, ("start",), rest, refusal))
