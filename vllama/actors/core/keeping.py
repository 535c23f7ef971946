"""A caller's own idle time at the instance: taken in any phase in which an engine is there or on its way."""

from vllama.actors.core import events as ev
from vllama.actors.core import moves as mv
from vllama.actors.core.instance_state import State
from vllama.actors.core.keep import FOREVER, KeepAlive
from vllama.actors.core.messages import Phase
from vllama.actors.core.moves import VOID, Decision, join

_KEPT = (Phase.QUEUED, Phase.STARTING, Phase.WAKING, Phase.AWAKE, Phase.DRAINING)


def keep(s: State, m: KeepAlive, now: float) -> Decision:
    """What sleeps or is stopped is left so; what is on its way up or down keeps it for when it is awake."""
    for_s = m.for_s if m.for_s >= 0 else FOREVER
    if s.phase not in _KEPT or s.keep_s == for_s:
        return VOID
    noted: Decision = [ev.KeepAliveSet(for_s)], []
    if s.phase is not Phase.AWAKE or for_s == FOREVER:  # a timer that runs finds that it has nothing to do
        return noted
    if for_s == 0:
        return noted if s.serving else join(noted, sleep(s, now, busy=mv.busy(s)))
    idle_s = 0.0 if s.serving else now - s.last_used
    return join(noted, mv.arm(s, max(for_s - idle_s, 0.0)))


def sleep(s: State, now: float, *, busy: bool) -> Decision:
    """As the idle timer would have it."""
    return mv.descend(s, s.policy.unload_mode, "idle", now, busy=busy)


def last_ended(s: State, now: float) -> Decision:
    """The last request in flight has ended: nothing, unless this is when it sleeps."""
    return sleep(s, now, busy=bool(s.lent)) if s.keep_s == 0 and s.phase is Phase.AWAKE else VOID
