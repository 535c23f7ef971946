"""A model's entry has changed: what holds from now on, and what only from its next start."""

from vllama.actors.core import events as ev
from vllama.actors.core import moves as mv
from vllama.actors.core import urgency
from vllama.actors.core.instance_state import State
from vllama.actors.core.messages import Configure, Phase
from vllama.actors.core.moves import VOID, Decision, join


def configured(s: State, m: Configure, now: float) -> Decision:
    """In any phase. A running engine goes on as it was started; `failed` and a back-off are over."""
    if (m.policy, m.need, m.settings) == (s.policy, s.need, s.settings):
        return VOID
    taken: Decision = [ev.InstanceConfigured(m.policy, m.need, m.settings)], []
    cleared: Decision = ([ev.FailuresCleared()], []) if s.failures or s.error or s.not_before else VOID
    match s.phase:
        case Phase.FAILED:
            return join(taken, ([ev.FailuresCleared()], []), mv.move_to(Phase.STOPPED, now))
        case Phase.QUEUED if not s.alive and m.need != s.need:  # what it waits for is no longer what it needs
            highest = urgency.of_waiting(s, m.policy)
            again = mv.want_lease(s, now, fresh=True, need=m.need, highest=highest)
            return join(taken, cleared, mv.drop_slot(s), mv.drop_lease(s), again)
        case Phase.AWAKE:
            return join(taken, cleared, _idle_anew(s, m, now), _told(s, m))
    return join(taken, cleared, urgency.configured(s, m.policy))


def _idle_anew(s: State, m: Configure, now: float) -> Decision:
    """The timer that runs is the old setting's. When it rings, what is due is looked at by the new one."""
    if m.policy.unload_timeout == s.policy.unload_timeout or s.keep_s is not None:
        return VOID
    idle_s = 0.0 if s.serving else now - s.last_used
    return mv.arm(s, max(m.policy.unload_timeout - idle_s, 0.0))


def _told(s: State, m: Configure) -> Decision:
    """The broker, if it watches, decides by what it was told last."""
    if not s.watched:
        return VOID
    return [], [mv.candidate(s, s.last_used, len(s.serving), policy=m.policy)]
