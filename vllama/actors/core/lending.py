"""Batches of tickets at the instance: lent only while awake, recalled when it leaves that phase, awaited before it goes on."""

from vllama.actors.core import effects as fx
from vllama.actors.core import events as ev
from vllama.actors.core import keeping
from vllama.actors.core import moves as mv
from vllama.actors.core.batches import BatchBack, GiveBatch, Lend, Recall, Report
from vllama.actors.core.instance_state import State
from vllama.actors.core.messages import Busy, Idle, Phase, Refusal
from vllama.actors.core.moves import VOID, Decision, join


def lend(s: State, m: Lend, _: float) -> Decision:
    """Only what is awake lends; elsewhere the worker asks for each request. The answer is given either way."""
    if s.phase is not Phase.AWAKE:
        return [], [GiveBatch(m.batch, 0, s.run)]
    return [ev.BatchLent(m.batch, m.count)], [GiveBatch(m.batch, m.count, s.run)]


def report(s: State, m: Report, now: float) -> Decision:
    """Requests that a worker has admitted and ended by itself. One admitted on an engine that has ended meanwhile was no wrong,
    but is served by nobody: its worker asks again."""
    happened: list[ev.InstanceEvent] = []
    serving = set()
    spans = [range(batch, batch + count) for batch, count in s.lent.items()]
    for ask, request in m.admitted:
        if any(ask in span for span in spans):
            happened.append(ev.AskAdmitted(ask, now, "warm", request))
            serving.add(ask)
        else:
            happened.append(ev.AskRefused(ask, _too_late(s), request))
    ended = [ask for ask in m.ended if ask in s.serving or ask in serving]
    happened += [ev.AskEnded(ask, now) for ask in ended]
    left = len(s.serving) + len(serving) - len(ended)
    told: list[fx.InstanceEffect] = []
    if s.watched and not s.serving and left:
        told.append(fx.TellBroker(Busy(s.model, s.lease)))
    elif s.watched and s.serving and not left:
        told.append(fx.TellBroker(Idle(s.model, s.lease, now)))
    over: Decision = happened, told
    if not ended or left:
        return over
    return join(over, keeping.last_ended(s, now), VOID if s.lent else _down(s))


def back(s: State, m: BatchBack, _: float) -> Decision:
    """A batch has come back. The last one lets a drain go on."""
    if m.batch not in s.lent:
        return VOID
    over: Decision = [ev.BatchReturned(m.batch)], []
    return join(over, _down(s)) if len(s.lent) == 1 and not s.serving else over


def recalling(s: State, decision: Decision) -> Decision:
    """A decision that ends the phase in which the batches were lent recalls them too."""
    events, effects = decision
    if any(type(event) is ev.PhaseChanged for event in events):
        return events, [*effects, Recall(tuple(s.lent))]
    return decision


def _down(s: State) -> Decision:
    """Nothing is in flight and nothing is out: a drain asks for its slot."""
    if s.phase is not Phase.DRAINING or s.descent is None:
        return VOID
    return mv.want_slot(s, "down", s.devices, s.descent.level)


def _too_late(s: State) -> Refusal:
    return Refusal(
        "engine_lost", f"{s.model}: the engine had ended when a worker admitted this; it asks again"
    )
