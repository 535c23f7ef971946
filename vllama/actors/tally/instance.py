"""What an instance's records add to the numbers."""

from collections.abc import Callable, Mapping
from typing import Any

from vllama.actors.core import events as ev
from vllama.actors.core.messages import Phase
from vllama.actors.tally.numbers import Numbers, Rise

_RISING: Mapping[Phase, str] = {Phase.STARTING: "cold", Phase.WAKING: "wake"}
_FAILING: Mapping[Phase, str] = {
    Phase.STARTING: "start",
    Phase.WAKING: "wake",
    Phase.FALLING_ASLEEP: "sleep",
    Phase.STOPPING: "stop",
}


def _created(n: Numbers, model: str, _: ev.InstanceCreated, at: float) -> None:
    n.phases.setdefault(model, (Phase.STOPPED, at))


def _queued(n: Numbers, model: str, e: ev.AskQueued, at: float) -> None:
    n.asked[e.ask] = model, at


def _admitted(n: Numbers, model: str, e: ev.AskAdmitted, at: float) -> None:
    if n.asked and (asked := n.asked.pop(e.ask, None)) is not None:
        n.waits[model, e.how].observe(at - asked[1])
    else:
        n.warm[model] += 1


def _ended(n: Numbers, model: str, e: ev.AskEnded, at: float) -> None:
    """Of one that was admitted: nothing to count. Of one that still waited: it left."""
    if n.asked and (asked := n.asked.pop(e.ask, None)) is not None:
        n.waits[model, "left"].observe(at - asked[1])


def _refused(n: Numbers, model: str, e: ev.AskRefused, at: float) -> None:
    asked = n.asked.pop(e.ask, None)
    n.waits[model, "refused"].observe(0.0 if asked is None else at - asked[1])
    n.refusals[model, e.refusal.code] += 1


def _phase(n: Numbers, model: str, e: ev.PhaseChanged, at: float) -> None:
    before, since = n.phases.get(model, (Phase.STOPPED, at))
    n.phases[model] = e.to, at
    n.phase_s[model, before.value] += at - since
    if e.to is Phase.STARTING:
        n.starts[model] += 1
    elif e.to is Phase.WAKING:
        n.wakes[model] += 1
    elif e.to is Phase.AWAKE:
        n.going.pop(model, None)
        if (how := _RISING.get(before)) is not None:
            n.rises[model, how].observe(at - since)
            n.last_rise[model] = Rise(how, since, at)


def _going(n: Numbers, model: str, e: ev.DescentSet, _: float) -> None:
    """Once for each way down, however often its end is changed."""
    if model not in n.going:
        n.descents[model, e.why] += 1
        n.going[model] = e.why


def _gone_down(n: Numbers, model: str, _: ev.DescentCleared, __: float) -> None:
    n.going.pop(model, None)


def _slept(n: Numbers, model: str, e: ev.EngineSlept, _: float) -> None:
    n.sleeps[model, e.level] += 1
    n.falls[model].observe(e.took_s)


def _spawned(n: Numbers, model: str, _: ev.EngineSpawned, __: float) -> None:
    n.faulted.discard(model)


def _faulted(n: Numbers, model: str, _: ev.EngineFaulted, __: float) -> None:
    phase, _since = n.phases.get(model, (Phase.STOPPED, 0.0))
    n.failures[model, _FAILING.get(phase, "serving")] += 1
    n.faulted.add(model)


def _gone(n: Numbers, model: str, e: ev.EngineGone, _: float) -> None:
    """The end of an engine that nobody asked for, unless its fault has been counted."""
    n.going.pop(model, None)
    if not e.expected and model not in n.faulted:
        phase, _since = n.phases.get(model, (Phase.STOPPED, 0.0))
        n.failures[model, _FAILING.get(phase, "serving")] += 1
    n.faulted.discard(model)


def _reset(n: Numbers, model: str, _: ev.InstanceReset, at: float) -> None:
    before, since = n.phases.get(model, (Phase.STOPPED, at))
    n.phases[model] = Phase.STOPPED, at
    n.phase_s[model, before.value] += at - since
    n.failures[model, "bug"] += 1
    n.going.pop(model, None)
    n.faulted.discard(model)
    for ask in [ask for ask, (of, _since) in n.asked.items() if of == model]:
        _model, asked_at = n.asked.pop(ask)
        n.waits[model, "refused"].observe(at - asked_at)
        n.refusals[model, "internal_error"] += 1


RULES: dict[type, Callable[[Numbers, str, Any, float], None]] = {
    ev.InstanceCreated: _created,
    ev.AskQueued: _queued,
    ev.AskAdmitted: _admitted,
    ev.AskEnded: _ended,
    ev.AskRefused: _refused,
    ev.PhaseChanged: _phase,
    ev.DescentSet: _going,
    ev.DescentCleared: _gone_down,
    ev.EngineSlept: _slept,
    ev.EngineSpawned: _spawned,
    ev.EngineFaulted: _faulted,
    ev.EngineGone: _gone,
    ev.InstanceReset: _reset,
}
