"""What an instance's records add: how its waits begin, what they spend their time on, how they end."""

from collections.abc import Callable
from typing import Any

from vllama.actors.core import events as ev
from vllama.actors.core.messages import Phase
from vllama.actors.explain.episodes import NAMES_MAX, Asked, Refused, Wait
from vllama.actors.explain.ledger import Ledger, Open

_REST = (Phase.STOPPED, Phase.ASLEEP, Phase.FAILED)


def _opened(r: Ledger, model: str, at: float) -> Open:
    found = r.open.get(model)
    if found is None:
        found = r.open[model] = Open(Wait(model, at))
        r.episodes.append(found.wait)
    return found


def _close(r: Ledger, model: str, at: float, outcome: Any) -> None:
    found = r.open.pop(model, None)
    if found is not None:
        found.wait.outcome, found.wait.ended = outcome, at
        for ask in found.waiting:
            r.names.pop(ask, None)


def _queued(r: Ledger, model: str, e: ev.AskQueued, at: float) -> None:
    found = _opened(r, model, at)
    found.waiting.add(e.ask)
    found.wait.asks += 1
    if e.request:
        r.names[e.ask] = e.request
        if len(found.wait.requests) < NAMES_MAX:
            found.wait.requests.append(e.request)
    _follow(r, model, e.ask, e.request, at, found.wait)


def _follow(r: Ledger, model: str, ask: int, request: str, at: float, wait: Wait | None) -> Asked | None:
    if r.request is None or request != r.request:
        return None
    asked = r.followed[ask] = Asked(model, ask, request, at, wait=wait)
    r.asked.append(asked)
    return asked


def _admitted(r: Ledger, model: str, e: ev.AskAdmitted, at: float) -> None:
    found = r.open.get(model)
    if found is not None:
        found.waiting.discard(e.ask)
        r.names.pop(e.ask, None)
    asked = r.followed.get(e.ask) or _follow(r, model, e.ask, e.request, at, None)
    if asked is not None:
        asked.how, asked.admitted = e.how, at


def _ended(r: Ledger, model: str, e: ev.AskEnded, at: float) -> None:
    asked = r.followed.pop(e.ask, None)
    if asked is not None:
        asked.ended = at
    found = r.open.get(model)
    if found is not None and e.ask in found.waiting:
        found.waiting.discard(e.ask)
        r.names.pop(e.ask, None)
        _maybe_over(r, model, found, at)


def _refused(r: Ledger, model: str, e: ev.AskRefused, at: float) -> None:
    name = e.request or r.names.pop(e.ask, "")
    found = r.open.get(model)
    if found is not None and e.ask in found.waiting:
        found.waiting.discard(e.ask)
        found.wait.refusals += 1
        _maybe_over(r, model, found, at)
    asked = r.followed.pop(e.ask, None) or _follow(r, model, e.ask, e.request, at, None)
    if asked is not None:
        asked.code, asked.refusal, asked.ended = e.refusal.code, e.refusal.message, at
    last = r.episodes[-1] if r.episodes else None
    if not (
        isinstance(last, Refused) and (last.model, last.message, last.at) == (model, e.refusal.message, at)
    ):
        last = Refused(model, at, e.refusal.code, e.refusal.message, asks=0)
        r.episodes.append(last)
    last.asks += 1
    if name and len(last.requests) < NAMES_MAX:
        last.requests.append(name)


def _maybe_over(r: Ledger, model: str, found: Open, at: float) -> None:
    if not found.waiting and not found.commands:
        _close(r, model, at, "refused" if found.wait.refusals else "left")


def _command(r: Ledger, model: str, e: ev.CommandTaken, at: float) -> None:
    if e.verb == "start":
        _opened(r, model, at).commands.add(e.command)


def _answered(r: Ledger, model: str, e: ev.CommandAnswered, at: float) -> None:
    found = r.open.get(model)
    if found is not None and e.command in found.commands:
        found.commands.discard(e.command)
        if e.refusal is not None:
            found.wait.refusals += 1
            _maybe_over(r, model, found, at)


def _wants_memory(r: Ledger, model: str, e: ev.LeaseRequested, at: float) -> None:
    found = _opened(r, model, at)
    found.wait.bytes, found.step, found.since = e.bytes, "memory_s", at
    found.wait.tries += 1


def _has_memory(r: Ledger, model: str, e: ev.LeaseHeld, at: float) -> None:
    found = r.open.get(model)
    if found is not None:
        found.wait.granted_bytes, found.wait.devices = e.bytes, e.devices
        _step(r, model, "turn_s", at)


def _has_turn(r: Ledger, model: str, _: ev.SlotHeld, at: float) -> None:
    found = r.open.get(model)
    if found is not None and found.step == "turn_s":
        _step(r, model, "engine_s", at)


def _step(r: Ledger, model: str, step: str, at: float) -> None:
    """The step under way is over; the next begins."""
    found = r.open.get(model)
    if found is None:
        return
    if found.step:
        setattr(found.wait, found.step, getattr(found.wait, found.step) + at - found.since)
    found.step, found.since = step, at


def _phase(r: Ledger, model: str, e: ev.PhaseChanged, at: float) -> None:
    before, r.phases[model] = r.phases.get(model), e.to
    found = r.open.get(model)
    if found is None:
        return
    if e.to is Phase.AWAKE:
        found.wait.how = {Phase.STARTING: "cold", Phase.WAKING: "wake"}.get(before or e.to, "stayed")
        _step(r, model, "", at)
        _close(r, model, at, "awake")
    elif e.to in _REST:
        _step(r, model, "", at)
        _maybe_over(r, model, found, at)


RULES: dict[type, Callable[[Ledger, str, Any, float], None]] = {
    ev.AskQueued: _queued,
    ev.AskAdmitted: _admitted,
    ev.AskEnded: _ended,
    ev.AskRefused: _refused,
    ev.CommandTaken: _command,
    ev.CommandAnswered: _answered,
    ev.LeaseRequested: _wants_memory,
    ev.LeaseHeld: _has_memory,
    ev.SlotHeld: _has_turn,
    ev.PhaseChanged: _phase,
}
