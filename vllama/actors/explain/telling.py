"""Explanations in words: one paragraph each, for the person who asks why."""

import time
from collections.abc import Mapping, Sequence

from vllama.actors.core.refusals import human
from vllama.actors.explain.episodes import Asked, Episode, Eviction, Refused, Sought, Wait
from vllama.actors.wording import level_words, spared_words, weighed_words

Names = Mapping[str, str]  # of devices


def told(episode: Episode, now: float, names: Names) -> str:
    """The explanation, with its time of day."""
    return f"{_clock(episode.at)} {_words(episode, now, names)}"


def _words(episode: Episode, now: float, names: Names) -> str:
    match episode:
        case Wait():
            return _wait(episode, now, names)
        case Eviction():
            mine = episode.model == episode.wanted_by
            whom = "a start of its own, with less memory than its wake took" if mine else episode.wanted_by
            went = f"{episode.model} {_went(episode)} for {whom}"
            return f"{went}: {_short(episode, names)}{_stayed(episode)}"
        case Refused():
            which = f" ({', '.join(episode.requests)})" if episode.requests else ""
            who = f"{_count(episode.asks, 'request')} for {episode.model}{which}"
            return f"{who} refused ({episode.code}): {_first_line(episode.message)}"
        case Asked():
            return f"request {episode.request} for {episode.model} {_asked(episode, now)}"


def _asked(a: Asked, now: float) -> str:
    if a.refusal:
        return f"was refused after {_s((a.ended or now) - a.at)} ({a.code}): {_first_line(a.refusal)}"
    if a.admitted is None and a.ended is None:
        return f"has waited {_s(now - a.at)} so far"
    if a.admitted is None:
        return f"left after {_s((a.ended or now) - a.at)} without an answer"
    waited = f"waited {_s(a.admitted - a.at)} ({a.how})"
    admitted = "was admitted at once: the model was awake" if a.how == "warm" else waited
    over = f"it ended {_s(a.ended - a.admitted)} later" if a.ended is not None else "it still runs"
    return f"{admitted}; {over}"


def _wait(w: Wait, now: float, names: Names) -> str:
    took = _s((w.ended if w.ended is not None else now) - w.at)
    asks = f" for {_count(w.asks, 'request')}" if w.asks > 1 else ""
    head = {
        "awake": f"waited {took}{asks}",
        "refused": f"waited {took}{asks} and was refused",
        "left": f"waited {took}{asks}, then nobody waited any more",
        "": f"has waited {took} so far{asks}",
    }[w.outcome]
    if w.outcome == "awake" and not w.asks:
        head = f"came up in {took}"
    parts = [*_memory(w, names), *_turn(w, names), *_engine(w)]
    return f"{w.model} {head}: {'; '.join(parts)}" if parts else f"{w.model} {head}"


def _memory(w: Wait, names: Names) -> list[str]:
    """What kept it from its memory."""
    parts: list[str] = [f"it waited at priority {w.priority}"] if w.priority else []
    if w.evictions:
        first = w.evictions[0]
        parts.append(_short(first, names))
        parts += [f"{e.model}{_use(e)} {_went(e)}{_freed(e)}{_cost(e)}" for e in w.evictions]
        stayed = spared_words(_without(first.spared, w.evictions), first.left_out)
        parts += [f"spared: {stayed}"] if stayed else []
    if w.sought:
        parts.append(_nobody(w.sought[-1], names, moments=len(w.sought)))
    if not w.evictions and not w.sought and w.behind and w.memory_s >= 0.05:
        parts.append(f"before it {', '.join(w.behind)} waited for memory")
    if w.granted_bytes and w.granted_bytes < w.bytes:
        parts.append(
            f"it got {human(w.granted_bytes)} of the {human(w.bytes)} it asked for, nothing else could go"
        )
    if w.tries > 1:
        parts.append(f"it took {w.tries} tries")
    if w.memory_s >= 0.05:
        parts.append(f"memory after {_s(w.memory_s)}")
    return parts


def _turn(w: Wait, names: Names) -> list[str]:
    if w.turn_s < 0.05:
        return []
    after = f" after {', '.join(w.turns)}" if w.turns else ""
    return [
        f"its turn on {', '.join(names.get(d, d) for d in w.devices) or 'its devices'} came{after}, {_s(w.turn_s)} later"
    ]


def _engine(w: Wait) -> list[str]:
    words = {"cold": "started in", "wake": "woke in"}.get(w.how)
    if words:
        return [f"{words} {_s(w.engine_s)}"]
    return ["its own way down was called off"] if w.how == "stayed" else []


def _short(e: Eviction | Sought, names: Names) -> str:
    return f"{names.get(e.device, e.device) or 'its device'} was {human(e.short_bytes)} short"


def _nobody(s: Sought, names: Names, moments: int) -> str:
    stayed = spared_words(s.spared, s.left_out)
    why = (
        f"nobody could go: {stayed}"
        if stayed
        else "no model of vllama's was there to go: vllama's own zygote, or other programs, hold it"
    )
    often = f" (the last of {moments} such moments)" if moments > 1 else ""
    return f"{_short(s, names)} and {why}{often}"


def _use(e: Eviction) -> str:
    if e.in_flight:
        return f" ({e.in_flight} in flight)"
    return f" (idle {_s(e.idle_s)})" if e.idle_s is not None else ""


def _went(e: Eviction) -> str:
    if e.outcome == "cancelled":
        return f"was to be {level_words(e.level)}, which was called off"
    if not e.outcome:
        return f"is to be {level_words(e.level)}"
    level = 3 if e.outcome == "stopped" else e.level
    deeper = f" (level {e.level} was asked for)" if level != e.level else ""
    return f"was {level_words(level)}{deeper}"


def _freed(e: Eviction) -> str:
    return "" if e.freed_bytes is None else f", it freed {human(e.freed_bytes)} after {_s(e.took_s or 0.0)}"


def _cost(e: Eviction) -> str:
    told = weighed_words(e.weighed)
    return f", it cost the least ({told})" if told else ""


def _stayed(e: Eviction) -> str:
    """How the victim was used, what it freed, and who was spared instead."""
    use = f"; it had {_count(e.in_flight, 'request')} in flight" if e.in_flight else ""
    idle = f"; it had been idle for {_s(e.idle_s)}" if e.idle_s is not None else ""
    stayed = spared_words(e.spared, e.left_out)
    cost = _cost(e).replace(", it", "; it", 1)
    return f"{use}{idle}{_freed(e).replace(', it', '; it', 1)}{cost}{f'; spared: {stayed}' if stayed else ''}"


def _without(
    spared: Sequence[tuple[str, str, int]], gone: Sequence[Eviction]
) -> tuple[tuple[str, str, int], ...]:
    """Those of the first look who stayed to the end."""
    went = {e.model for e in gone}
    return tuple(item for item in spared if item[0] not in went)


def _s(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _first_line(text: str) -> str:
    """An engine's log may hang on a refusal: all of it is in the data."""
    return text.partition("\n")[0]


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
