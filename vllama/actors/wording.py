"""Records of the journal in words. An event that has none of its own is told by its name and its fields."""

import dataclasses
import re

from vllama.actors.core import broker_events as bk
from vllama.actors.core import events as ev
from vllama.actors.core.cost import HORIZON_S
from vllama.actors.core.refusals import human
from vllama.actors.record import Record

_WHY = {"evict": "to make room", "command": "by command", "idle": "idle for long", "residue": "its residue is in the way",
        "pin": "to pin its host RAM once"}  # fmt: skip


def sentence(record: Record) -> str:
    """What happened, without the time and the actor."""
    event = record.event
    words = _requests(event) or _instance(event) or _engine(event) or _broker(event) or _devices(event)
    return words or plain(event)


def plain(event: object) -> str:
    """An event's name as words, then its fields."""
    name = re.sub(r"(?<!^)(?=[A-Z])", " ", type(event).__name__).lower()
    fields = ((f.name, getattr(event, f.name)) for f in dataclasses.fields(event))  # type: ignore[arg-type]
    told = ", ".join(f"{key} {value}" for key, value in fields if value not in ("", (), None))
    return f"{name}: {told}" if told else name


def spared_words(spared: tuple[tuple[str, str, int], ...], left_out: int) -> str:
    """Who stays and why, as one clause."""
    parts = []
    for model, why, in_flight in spared:
        flying = [f"{in_flight} in flight"] if in_flight else []
        parts.append(f"{model} ({', '.join([*flying, *([why] if why != 'busy' else [])])})")
    return ", ".join([*parts, *([f"{left_out} more"] if left_out else [])])


def weighed_words(weighed: tuple[float, ...]) -> str:
    """Why costs chose it, as one clause."""
    if len(weighed) != 3:
        return ""
    visits, back_s, down_s = weighed
    return (
        f"{visits:.1f} visits expected in the next {HORIZON_S / 60:.0f} min, "
        f"{back_s:.1f} s to come back, {down_s:.1f} s to go"
    )


def level_words(level: int) -> str:
    return "stopped" if level == 3 else f"put to sleep at level {level}"


def _requests(event: object) -> str:
    match event:
        case ev.AskQueued(ask, request, priority):
            return f"request {_named(ask, request)} waits" + (
                f" at priority {priority}" if priority is not None else ""
            )
        case ev.AskAdmitted(ask, _, how, request):
            return f"request {_named(ask, request)} is admitted ({how})"
        case ev.AskEnded(ask):
            return f"request {ask} has ended"
        case ev.AskRefused(ask, refusal, request):
            return f"request {_named(ask, request)} is refused ({refusal.code}): {refusal.message}"
        case ev.BatchLent(batch, count):
            return f"a worker may admit {count} requests by itself, numbered from {batch} on"
        case ev.BatchReturned(batch):
            return f"the tickets of batch {batch} are back"
    return ""


def _named(ask: int, request: str) -> str:
    return f"{ask} ({request})" if request else str(ask)


def _instance(event: object) -> str:
    match event:
        case ev.InstanceCreated(_, _, need):
            return f"begins: it needs {human(need.bytes)}, {human(need.weights_bytes)} of it for its weights"
        case ev.CommandTaken(command, verb, level):
            return f"command {command}: {verb}{f' at level {level}' if verb == 'sleep' else ''}"
        case ev.CommandAnswered(command, phase, note, refusal):
            return f"command {command} is answered: {refusal.message if refusal else note or phase}"
        case ev.LeaseRequested(lease, size, fresh):
            return f"asks for {human(size)} (lease {lease}) for a {'start' if fresh else 'wake'}"
        case ev.UrgencyChanged(priority):
            return f"is wanted at priority {priority} now"
        case ev.LeaseHeld(lease, size, devices):
            return f"holds {human(size)} on {', '.join(devices)} (lease {lease})"
        case ev.LeaseDropped(lease, residue):
            return f"gives lease {lease} back" + (f", but for {human(residue)}" if residue else "")
        case ev.SlotRequested(slot, transition):
            return f"asks for its turn to {_turn(transition)} (slot {slot})"
        case ev.SlotHeld(slot):
            return f"has its turn (slot {slot})"
        case ev.SlotDropped(slot):
            return f"ends its turn (slot {slot})"
        case ev.PhaseChanged(to):
            return f"is {to.value.replace('_', ' ')}"
        case ev.KeepAliveSet(for_s):
            return (
                "stays awake until it is told otherwise"
                if for_s < 0
                else f"is to sleep when idle for {for_s:g} s"
            )
        case ev.DescentSet(level, why):
            return f"is to be {level_words(level)}: {_WHY.get(why, why)}"
    return ""


def _turn(transition: str) -> str:
    return {"down": "go down", "wake": "wake", "start": "start"}[transition]


def _engine(event: object) -> str:
    match event:
        case ev.EngineSpawned(run):
            return f"engine {run} is launched"
        case ev.EnginePlaced(run, pid, port, log, mode):
            after = f" after {event.waited_s:.1f} s for the preload" if event.waited_s else ""
            return f"engine {run} is pid {pid} on port {port}, started by {mode}{after}; log {log}"
        case ev.EngineRose(run, steps):
            told = ", ".join(f"{name} {took:.2f} s" for name, took in steps)
            return f"engine {run} is up{': ' if told else ''}{told}"
        case ev.EngineMeasured(run, size):
            return f"engine {run} takes {human(size)}"
        case ev.EngineSlept(run, level, residue, freed, took_s):
            return f"engine {run} sleeps at level {level} after {took_s:.2f} s: {human(freed)} came free, {human(residue)} stay"
        case ev.EngineFaulted(run, why):
            return f"engine {run} failed: {why}"
        case ev.EngineGone(run, code, why, _, expected):
            how = "as it was told to" if expected else f"by itself (code {code}{', ' + why if why else ''})"
            return f"engine {run} has ended {how}"
        case ev.FailureCounted(_, _, give_up, error):
            return (
                f"failure counted{', given up' if give_up else ''}: {error.splitlines()[0] if error else ''}"
            )
        case ev.RestartNoted(reason):
            return f"is started once more ({reason})"
    return ""


def _broker(event: object) -> str:
    match event:
        case bk.LeaseQueued(model, lease, size, _, _, fresh):
            at = f" at priority {event.priority}" if event.priority else ""
            return f"{model} waits for {human(size)} (lease {lease}) for a {'start' if fresh else 'wake'}{at}"
        case bk.LeasePrioritized(model, lease, priority, pinned):
            return f"{model} has priority {priority}{' and is pinned' if pinned else ''} (lease {lease})"
        case bk.LeaseBooked(model, lease, size, devices):
            return f"{model} is granted {human(size)} on {', '.join(devices)} (lease {lease})"
        case bk.LeaseDenied(model, _, refusal):
            return f"{model} is denied memory: {refusal.message}"
        case bk.LeaseWithdrawn(model, lease):
            return f"{model} waits no more (lease {lease})"
        case bk.LeaseReturning(model, lease, residue):
            return f"{model} gives lease {lease} back" + (f", but for {human(residue)}" if residue else "")
        case bk.LeaseFreed(model, lease, residue, unreturned):
            kept = f", a sleeper keeps {human(residue)}" if residue else ""
            short = f", {human(unreturned)} have not come back" if unreturned else ""
            return f"the memory of {model} is back (lease {lease}){kept}{short}"
        case bk.EvictionOrdered():
            return _ordered(event)
        case bk.RoomSought(model, _, device, short, spared, left_out):
            told = spared_words(spared, left_out) or "nobody of ours is there"
            return f"{model} waits: {device} is {human(short)} short, and nobody can go: {told}"
        case bk.EvictionCancelled(model):
            return f"{model} may stay: nobody waits any more"
        case bk.SlotQueued(model, slot, transition):
            return f"{model} waits for its turn to {_turn(transition)} (slot {slot})"
        case bk.SlotBooked(model, slot):
            return f"it is the turn of {model} (slot {slot})"
        case bk.SlotFreed(model, slot):
            return f"the turn of {model} is over (slot {slot})"
    return ""


def _ordered(e: bk.EvictionOrdered) -> str:
    if e.model == e.wanted_by:
        return f"{e.model} is to be stopped and started afresh: to wake it, {e.device} is {human(e.short_bytes)} short"
    where = f"{e.device} is " if e.device else ""
    cost = f"; it costs the least: {told}" if (told := weighed_words(e.weighed)) else ""
    stay = f"; spared: {told}" if (told := spared_words(e.spared, e.left_out)) else ""
    return f"{e.model} is to be {level_words(e.level)} for {e.wanted_by}: {where}{human(e.short_bytes)} short{cost}{stay}"


def _devices(event: object) -> str:
    match event:
        case bk.DeviceAdded(device, _, total):
            return f"device {device} has {human(total)}"
        case bk.OfferMade(model):
            return f"{model} is asked whether it can go"
        case bk.OfferAnswered(model, _, _, in_flight, pinned, level):
            answer = (
                "not now"
                if in_flight < 0
                else f"{in_flight} in flight, level {level}{', pinned' if pinned else ''}"
            )
            return f"{model} answers: {answer}"
        case bk.DevicesMeasured(_, devices):
            return "measured: " + (
                ", ".join(f"{d.device} has {human(d.free_bytes)} free" for d in devices) or "nothing"
            )
    return ""
