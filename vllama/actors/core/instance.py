"""One model's instance: decides what each message means in each phase.

Laws held here: only AWAKE admits; the engine is put to sleep only at zero in flight and only with the broker's slot; whatever
carries an old `run`, `lease`, `slot` or `timer` is void; an exit is an outcome in any phase. `decide` is total: what is not
named is void on purpose. The table of phases is in design/instance.md.
"""

from collections.abc import Callable

from vllama.actors.core import ascent, descent, lending, refusals
from vllama.actors.core import effects as fx
from vllama.actors.core import events as ev
from vllama.actors.core import moves as mv
from vllama.actors.core.batches import BatchBack, Lend, Report
from vllama.actors.core.configuring import configured
from vllama.actors.core.exits import exited
from vllama.actors.core.instance_state import State, evolve
from vllama.actors.core.keep import KeepAlive
from vllama.actors.core.keeping import keep
from vllama.actors.core.messages import (
    Acquire,
    Calibrate,
    Configure,
    EngineExited,
    EngineWeighed,
    EvictDeclined,
    InstanceMessage,
    Offer,
    Phase,
    Release,
    Shutdown,
    WatchUse,
)
from vllama.actors.core.moves import VOID, Decision, join

__all__ = ["State", "decide", "evolve"]

AWAKE = Phase.AWAKE
_WARM = (Acquire, Release)
_BY_PHASE: dict[Phase, Callable[[State, InstanceMessage, float], Decision]] = {
    Phase.STOPPED: ascent.stopped,
    Phase.FAILED: ascent.stopped,
    Phase.QUEUED: ascent.queued,
    Phase.STARTING: ascent.coming_up,
    Phase.WAKING: ascent.coming_up,
    Phase.AWAKE: descent.awake,
    Phase.DRAINING: descent.draining,
    Phase.FALLING_ASLEEP: descent.falling_asleep,
    Phase.ASLEEP: descent.asleep,
    Phase.STOPPING: descent.stopping,
}


def decide(s: State, m: InstanceMessage, now: float) -> Decision:
    """Say what happened and what to do about it; read nothing but the arguments."""
    if (
        s.phase is AWAKE and type(m) in _WARM and s.keep_s != 0
    ):  # two turns a request: nothing is looked up for them
        return descent.awake(s, m, now)
    in_any_phase = _IN_ANY_PHASE.get(type(m))
    decision = _BY_PHASE[s.phase](s, m, now) if in_any_phase is None else in_any_phase(s, m, now)
    return lending.recalling(s, decision) if s.lent and s.phase is AWAKE else decision


def _exit(s: State, m: EngineExited, now: float) -> Decision:
    return exited(s, m, now) if s.alive and m.run == s.run else VOID


def _offer(s: State, m: Offer, _: float) -> Decision:
    if s.phase is Phase.AWAKE and m.lease == s.lease:
        return [], [mv.candidate(s, s.last_used, len(s.serving))]
    return [], [fx.TellBroker(EvictDeclined(s.model, m.lease))]


def _watch(s: State, m: WatchUse, _: float) -> Decision:
    return ([ev.WatchChanged(m.on)], []) if m.lease == s.lease and s.watched != m.on else VOID


def _weighed(s: State, m: EngineWeighed, _: float) -> Decision:
    """Weighed while it served: what its next wake needs. An engine that has left that state meanwhile weighs something else."""
    if m.run != s.run or not m.footprint_bytes or s.phase not in (Phase.AWAKE, Phase.DRAINING):
        return VOID
    return [ev.EngineMeasured(m.run, m.footprint_bytes)], []


def _calibrate(s: State, m: Calibrate, _: float) -> Decision:
    """For the next start: who waits for memory now has said already what it needs."""
    return ([ev.NeedCalibrated(m.need)], []) if m.need != s.need else VOID


def _shutdown(s: State, _: Shutdown, now: float) -> Decision:
    """No slot is needed any more: whoever waits is refused, the engine is stopped, what is starting is killed."""
    refusal = refusals.shutting_down(s)
    over = join(mv.refuse(s.waiting, refusal), mv.deny(s, ("start", "sleep", "stop"), s.phase, refusal))
    if s.phase is Phase.STOPPING:
        return over
    if not s.alive:
        rest = mv.move_to(Phase.STOPPED, now) if s.phase is Phase.QUEUED else VOID
        return join(over, mv.drop_slot(s), mv.drop_lease(s), rest)
    going = mv.drop_slot(s) if s.slot_state == "waiting" else VOID
    withdrawn = mv.drop_lease(s) if s.lease_state == "waiting" else VOID
    stop = fx.Kill(s.run) if s.phase in (Phase.STARTING, Phase.WAKING) else fx.StopEngine(s.run)
    return join(over, going, withdrawn, mv.move_to(Phase.STOPPING, now), ([], [stop]))


_IN_ANY_PHASE: dict[type, Callable[..., Decision]] = {
    Report: lending.report,
    Lend: lending.lend,
    BatchBack: lending.back,
    EngineExited: _exit,
    EngineWeighed: _weighed,
    Offer: _offer,
    WatchUse: _watch,
    Shutdown: _shutdown,
    Configure: configured,
    Calibrate: _calibrate,
    KeepAlive: keep,
}
