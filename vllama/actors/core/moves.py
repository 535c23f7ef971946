"""The moves an instance's decisions are made of: each reads the state and returns what happened and what to do."""

from collections.abc import Iterable

from vllama.actors.core import effects as fx
from vllama.actors.core import events as ev
from vllama.actors.core import refusals, urgency
from vllama.actors.core.instance_state import Goal, State
from vllama.actors.core.levels import notes_on
from vllama.actors.core.messages import (
    Acquire,
    Candidate,
    How,
    Level,
    Need,
    Phase,
    Policy,
    Refusal,
    RequestLease,
    RequestSlot,
    ReturnCopy,
    ReturnLease,
    ReturnSlot,
    SlotKind,
    Why,
)

Decision = tuple[list[ev.InstanceEvent], list[fx.InstanceEffect]]

VOID: Decision = ([], [])


def join(*decisions: Decision) -> Decision:
    """Several moves as one decision, in order."""
    happened: list[ev.InstanceEvent] = []
    todo: list[fx.InstanceEffect] = []
    for events, effects in decisions:
        happened += events
        todo += effects
    return happened, todo


def enqueue(s: State, m: Acquire) -> Decision:
    """The request waits, unless too many do already."""
    if len(s.waiting) >= s.policy.queue_max:
        return refuse_at_once(m.ask, m.request, refusals.queue_full(s))
    return join(queue(m), urgency.joined(s, m.priority))


def queue(m: Acquire) -> Decision:
    return [ev.AskQueued(m.ask, m.request, m.priority)], []


def refuse_at_once(ask: int, request: str, refusal: Refusal) -> Decision:
    """The request has not waited: nothing else in the journal says which one it is."""
    return [ev.AskRefused(ask, refusal, request)], [fx.Refuse(ask, refusal)]


def refuse(asks: Iterable[int], refusal: Refusal) -> Decision:
    asks = list(asks)
    return [ev.AskRefused(ask, refusal) for ask in asks], [fx.Refuse(ask, refusal) for ask in asks]


def wanted(s: State) -> bool:
    """Somebody waits for this instance to be awake."""
    return bool(s.waiting) or any(goal.verb == "start" for goal in s.goals.values())


def want_lease(
    s: State,
    now: float,
    *,
    fresh: bool,
    squeeze: bool = False,
    need: Need | None = None,
    highest: int | None = None,
) -> Decision:
    """Ask the broker for memory: the measured footprint for a wake, at least the estimate for a start; for a start with
    other settings than the last one had, the estimate alone. `need`: not the state's but this one. `highest`: the
    priority, if it is not that of those who wait by now."""
    lease, measured = s.lease + 1, s.footprint_bytes
    if fresh and (need is not None or s.launched != s.settings):
        measured = 0
    need = need or s.need
    size = max(measured, need.bytes) if fresh else measured or need.bytes
    size = max(size, s.residue_bytes)
    devices = need.devices if fresh else s.devices
    highest = urgency.of_waiting(s, s.policy) if highest is None else highest
    launched = 0 if fresh else s.launched_bytes
    request = RequestLease(
        s.model, lease, size, need.weights_bytes, devices, fresh, squeeze, s.visits, highest, launched
    )
    return [ev.LeaseRequested(lease, size, fresh, highest), ev.PhaseChanged(Phase.QUEUED, now)], [
        fx.TellBroker(request)
    ]


def drop_lease(s: State) -> Decision:
    """Give the lease back, or withdraw the request for it; the whole of it."""
    if not s.lease_state:
        return VOID
    return [ev.LeaseDropped(s.lease)], [
        fx.TellBroker(ReturnLease(s.model, s.lease, 0, s.last_used, s.visits, s.policy.priority))
    ]


def drop_residue(s: State) -> Decision:
    if not s.residue_lease:
        return VOID
    return [ev.LeaseDropped(s.residue_lease)], [
        fx.TellBroker(ReturnLease(s.model, s.residue_lease, 0, s.last_used, priority=s.policy.priority))
    ]


def want_slot(s: State, kind: SlotKind, devices: tuple[str, ...], level: Level = 0) -> Decision:
    """Ask for the right to move; on the way down to `level` 1 for the first time, with host RAM for its weights."""
    slot = s.slot + 1
    copy = s.need.copy_bytes if level == 1 and not s.copy_bytes else 0
    return [ev.SlotRequested(slot, kind)], [fx.TellBroker(RequestSlot(s.model, slot, kind, devices, copy))]


def drop_slot(s: State, *, copied: bool = False, took_s: float = 0.0, level: Level = 0) -> Decision:
    """The turn is over. `took_s`, `level`: a transition that ended well, for who reckons with what the next one takes."""
    if not s.slot_state:
        return VOID
    level = level if took_s > 0 else 0
    return [ev.SlotDropped(s.slot)], [fx.TellBroker(ReturnSlot(s.model, s.slot, copied, took_s, level))]


def candidate(
    s: State, last_used: float, in_flight: int, *, policy: Policy | None = None
) -> fx.InstanceEffect:
    """What the broker hears of one that may be evicted."""
    policy = policy or s.policy
    copy = 0 if s.copy_bytes else s.need.copy_bytes
    level = s.safe_level(policy.sleep_level)
    return fx.TellBroker(
        Candidate(
            s.model,
            s.lease,
            last_used,
            in_flight,
            policy.pinned,
            level,
            s.levels(policy),
            copy,
            s.visits,
            policy.priority,
        )
    )


def drop_copy(s: State) -> Decision:
    """The engine is gone, and with it what it held of the host's RAM."""
    return ([], [fx.TellBroker(ReturnCopy(s.model))]) if s.copy_bytes else VOID


def move_to(phase: Phase, now: float) -> Decision:
    return [ev.PhaseChanged(phase, now)], []


def arm(s: State, delay_s: float) -> Decision:
    return [ev.TimerArmed(s.timer + 1)], [fx.SetTimer(s.timer + 1, delay_s)]


def arm_idle(s: State, look_s: float | None) -> Decision:
    """The idle timer; none where there is nothing to look for."""
    return VOID if look_s is None else arm(s, look_s)


def first_look_s(s: State) -> float | None:
    """When the idle timer rings first: early for a level-1 model that has not pinned its host RAM yet."""
    after_s = s.idle_after_s()
    if not wants_pin(s):
        return after_s
    return s.policy.pin_idle_s if after_s is None else min(s.policy.pin_idle_s, after_s)


def wants_pin(s: State) -> bool:
    return s.policy.sleep_level == 1 and not s.pinned_once and not s.copy_denied and s.safe_level(1) == 1


def admit(s: State, asks: Iterable[int], how: How, now: float) -> Decision:
    asks = urgency.in_order(s, asks)
    return [ev.AskAdmitted(ask, now, how) for ask in asks], [fx.Admit(ask, s.run, how) for ask in asks]


def answer(
    command: int, phase: Phase, level: Level = 0, note: str = "", refusal: Refusal | None = None
) -> Decision:
    event = ev.CommandAnswered(command, phase.value, note, refusal)
    return [event], [fx.Reply(command, phase.value, level, note, refusal)]


def arrive(s: State, phase: Phase, level: Level = 0, note: str = "") -> Decision:
    """Answer every command whose goal this phase is; one that had to go deeper than asked is told so."""
    met = ((command, goal) for command, goal in s.goals.items() if _met(goal, phase, level))
    return join(
        *(answer(command, phase, level, note or _deeper_note(s, goal, phase, level)) for command, goal in met)
    )


def _deeper_note(s: State, goal: Goal, phase: Phase, level: Level) -> str:
    if goal.verb == "sleep" and goal.level == 1 and s.copy_denied and (phase is Phase.STOPPED or level == 2):
        return refusals.no_copy(s)
    if goal.verb == "sleep" and goal.level < 3 and phase is Phase.STOPPED:
        if s.level:
            return f"level {s.level} could not become level {goal.level} in place: the engine was stopped"
        if notes := notes_on(s):
            return f"the engine was stopped: {'; '.join(notes)}"
    return ""


def deny(s: State, verbs: tuple[str, ...], phase: Phase, refusal: Refusal) -> Decision:
    """Answer the commands of these kinds by a refusal."""
    return join(
        *(answer(c, phase, s.level, refusal=refusal) for c, goal in s.goals.items() if goal.verb in verbs)
    )


def _met(goal: Goal, phase: Phase, level: Level) -> bool:
    match goal.verb:
        case "start":
            return phase is Phase.AWAKE
        case "stop":
            return phase in (Phase.STOPPED, Phase.FAILED)
        case "sleep":
            return phase in (Phase.STOPPED, Phase.FAILED) or (phase is Phase.ASLEEP and level >= goal.level)


def busy(s: State) -> bool:
    """Requests are in flight, or may be: a worker holds tickets."""
    return bool(s.serving or s.lent)


def descend(s: State, level: Level, why: Why, now: float, *, busy: bool, evict: bool = False) -> Decision:
    """From awake on the way down: drain first, then ask for the slot."""
    level = s.safe_level(level)
    begun: Decision = [ev.DescentSet(level, why, evict), ev.PhaseChanged(Phase.DRAINING, now)], []
    if not busy:
        return join(begun, want_slot(s, "down", s.devices, level))
    if s.policy.drain_timeout_s is not None:
        return join(begun, arm(s, s.policy.drain_timeout_s))
    return begun


def sink(s: State, now: float, why: Why, *, evict: bool = False) -> Decision:
    """A sleeper on its way to stopped: it stays asleep until it has the slot."""
    stay = move_to(Phase.ASLEEP, now) if s.phase is not Phase.ASLEEP else VOID
    return join(([ev.DescentSet(3, why, evict)], []), stay, want_slot(s, "down", s.devices))
