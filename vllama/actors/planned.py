"""What would happen if a model were asked for now: a rehearsal of the real rule, as data and in words."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllama.actors.asking import device_names
from vllama.actors.core import broker_events as bk
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.instance_state import State, evolve
from vllama.actors.core.messages import Phase
from vllama.actors.core.refusals import human
from vllama.actors.rehearsal import Rehearsal, Rehearsed
from vllama.actors.system import System
from vllama.actors.wording import level_words, spared_words, weighed_words

_NO_HINDRANCE = ("going", "asleep", "not needed")  # of who is spared: why they keep nobody waiting
_MOVE = {"cold": "start", "wake": "wake"}


@dataclass(frozen=True, slots=True)
class Going:
    """Who would be made to go, and why it. `in_flight` requests would be waited for first."""

    model: str
    level: int
    device: str
    short_bytes: int
    idle_s: float | None
    in_flight: int
    takes_s: float | None  # as measured before; None: never yet
    weighed: tuple[float, ...]  # by the policy that reckons with costs


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer. `outcome`: awake, joins (it is on its way up already), wake, start, refused, unknown."""

    model: str
    phase: str
    outcome: str
    level: int
    needs_bytes: int
    granted_bytes: int
    devices: tuple[str, ...]
    free_bytes: dict[str, int]
    evicts: tuple[Going, ...]
    spared: tuple[tuple[str, str, int], ...]
    waits_for: tuple[tuple[str, str, int], ...]  # model, why, in flight
    before: tuple[str, ...]  # who would get memory first
    takes_s: float | None  # its own start or wake, as measured; None: never yet
    about_s: (
        float | None
    )  # until it is awake; None where something of it was never measured, or nobody can know
    passed_s: float  # of it: grace and other times that must pass
    code: str
    refusal: str


async def plan(system: System, name: str) -> dict[str, Any]:
    """What would happen if this model were asked for now. Changes nothing, journals nothing. Raises ModelUnknown, ConfigError."""
    model = (await system.route(name)).model
    states = system.journal.states
    live = states.instance(model)
    own = live.copy() if live is not None else _begun(system, model)
    phase, books = own.phase, states.broker()
    free = {device: books.free_bytes(device) for device in books.devices}
    seen = Rehearsal(states, model, own, time.time()).run()
    found = _plan(model, phase, books, free, seen, own)
    words = told(found, await device_names(system))
    return {**dataclasses.asdict(found), "words": words}


def _begun(system: System, model: str) -> State:
    """Nobody has asked for it yet: as it would begin."""
    state = State()
    evolve(state, system.created(system.catalog.files[model]))
    return state


def _plan(
    model: str, phase: Phase, books: BrokerState, free: dict[str, int], seen: Rehearsed, own: State
) -> Plan:
    events = [(record.event, record.at) for record in seen.records]
    queued = next((e for e, _ in events if isinstance(e, bk.LeaseQueued) and e.model == model), None)
    booked = [e for e, _ in events if isinstance(e, bk.LeaseBooked)]
    mine = next((e for e in booked if e.model == model), None)
    ordered = [(e, at) for e, at in events if isinstance(e, bk.EvictionOrdered) and e.wanted_by == model]
    sought = [e for e, _ in events if isinstance(e, bk.RoomSought) and e.model == model]
    evicts = tuple(_going(e, at, books, seen) for e, at in ordered)
    going = {g.model for g in evicts}
    outcome = _outcome(phase, seen)
    move = "start" if seen.outcome == "cold" else f"wake-{seen.level}"
    takes = _seconds(books, model, move) if outcome in ("start", "wake") else None
    known = [takes, *(g.takes_s for g in evicts)] if outcome in ("start", "wake") else []
    in_the_way = {m: (m, why, n) for e in sought for m, why, n in e.spared if why not in _NO_HINDRANCE}
    drained = {m: (m, "busy", n) for m, n in seen.drained.items() if m not in in_the_way}
    waits = tuple(sorted({**in_the_way, **drained}.values()))
    unclear = not known or None in known or any(why != "pinned" for _, why, _ in waits)
    spared = (*(e.spared for e, _ in ordered[:1]), *(e.spared for e in sought[-1:]))
    return Plan(
        model=model,
        phase=phase.value,
        outcome=outcome,
        level=seen.level,
        needs_bytes=queued.bytes if queued else 0,
        granted_bytes=mine.bytes if mine else 0,
        devices=mine.devices if mine else (queued.devices if queued else own.devices),
        free_bytes=free,
        evicts=evicts,
        spared=tuple(s for s in (spared[0] if spared else ()) if s[0] not in going),
        waits_for=waits,
        before=tuple(dict.fromkeys(e.model for e in booked if e.model != model)),
        takes_s=takes,
        about_s=0.0
        if outcome == "awake"
        else None
        if unclear
        else sum(s or 0.0 for s in known) + seen.passed_s,
        passed_s=seen.passed_s,
        code=seen.refusal.code if seen.refusal else "",
        refusal=seen.refusal.message if seen.refusal else "",
    )


def _outcome(phase: Phase, seen: Rehearsed) -> str:
    if seen.outcome == "warm":
        return "awake"
    if seen.outcome in _MOVE:
        return "joins" if phase in (Phase.STARTING, Phase.WAKING) else _MOVE[seen.outcome]
    return seen.outcome or "unknown"


def _going(e: bk.EvictionOrdered, at: float, books: BrokerState, seen: Rehearsed) -> Going:
    use = next(((used, n) for model, used, n in e.considered if model == e.model), None)
    idle = at - use[0] if use is not None and use[0] and not use[1] else None
    move = "stop" if e.level == 3 else f"sleep-{e.level}"
    in_flight = max(seen.drained.get(e.model, 0), use[1] if use else 0)
    took_s = _seconds(books, e.model, move)
    return Going(e.model, e.level, e.device, e.short_bytes, idle, in_flight, took_s, e.weighed)


def _seconds(books: BrokerState, model: str, move: str) -> float | None:
    """What this move took the last times; None: it was never measured."""
    known = books.known.get(model)
    return known.seconds.get(move) if known else None


# --- in words ---------------------------------------------------------------------------------------------------------


def told(p: Plan, names: Mapping[str, str]) -> str:
    """One line for what would happen, then one for each reason."""
    lines = [_head(p, names)]
    if p.needs_bytes:
        free = ", ".join(f"{names.get(d, d)} has {human(size)} free" for d, size in p.free_bytes.items())
        lines.append(f"it needs {human(p.needs_bytes)}; {free}")
    if 0 < p.granted_bytes < p.needs_bytes:
        lines.append(f"it would get {human(p.granted_bytes)}: nothing else could go")
    if p.before:
        lines.append(f"before it: {', '.join(p.before)}")
    lines += [_afresh(g, names) if g.model == p.model else _go(g, names) for g in p.evicts]
    if waits := [w for w in p.waits_for if w[0] not in {g.model for g in p.evicts} or w[1] != "busy"]:
        lines.append(f"in its way: {spared_words(tuple(waits), 0)}")
    if p.evicts and p.spared:
        lines.append(f"spared: {spared_words(p.spared, 0)}")
    return "\n  ".join(lines)


def _head(p: Plan, names: Mapping[str, str]) -> str:
    where = f" on {', '.join(names.get(d, d) for d in p.devices)}" if p.devices else ""
    match p.outcome:
        case "awake":
            return f"{p.model} is awake{where}: it would be answered at once"
        case "joins":
            return f"{p.model} is {p.phase} already{where}: it would wait for that"
        case "wake":
            return f"{p.model} would wake from level {p.level}{where} {_about(p)}"
        case "start":
            return f"{p.model} would be started{where} {_about(p)}"
        case "refused":
            later = f" after {p.passed_s:.0f} s" if p.passed_s >= 1 else ""
            return f"{p.model} would be refused{later} ({p.code}): {p.refusal.splitlines()[0]}"
    return f"{p.model} is {p.phase}: what would come of it cannot be told now"


def _about(p: Plan) -> str:
    if p.about_s is not None:
        return f"in about {p.about_s:.1f} s, as measured"
    if any(in_flight for _, _, in_flight in p.waits_for):
        return "when requests in flight have ended" + (f", then in {p.takes_s:.1f} s" if p.takes_s else "")
    return (
        f"in {p.takes_s:.1f} s once there is room"
        if p.takes_s
        else "(how long that takes was never measured)"
    )


def _afresh(g: Going, names: Mapping[str, str]) -> str:
    where = names.get(g.device, g.device)
    return f"it would be stopped first: to wake it, {where} is {human(g.short_bytes)} short, and a start makes do with less"


def _go(g: Going, names: Mapping[str, str]) -> str:
    why = (
        f"idle for {g.idle_s:.0f} s"
        if g.idle_s is not None
        else f"{g.in_flight} in flight"
        if g.in_flight
        else "idle"
    )
    took = f" in {g.takes_s:.1f} s" if g.takes_s is not None else ""
    where = names.get(g.device, g.device)
    cost = f"; it costs the least: {told}" if (told := weighed_words(g.weighed)) else ""
    return f"{g.model} ({why}) would be {level_words(g.level)}{took}: {where} is {human(g.short_bytes)} short{cost}"
