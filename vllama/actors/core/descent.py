"""Decisions while awake and on the way down: awake, draining, falling_asleep, asleep, stopping."""

from vllama.actors.core import effects as fx
from vllama.actors.core import events as ev
from vllama.actors.core import keeping, refusals, urgency
from vllama.actors.core import moves as mv
from vllama.actors.core.instance_state import Descent, State
from vllama.actors.core.messages import (
    Acquire,
    Busy,
    CancelEvict,
    EngineAsleep,
    EngineUnreachable,
    Evict,
    Idle,
    InstanceMessage,
    Phase,
    Release,
    ReturnLease,
    Sleep,
    SleepFailed,
    SlotGranted,
    Start,
    Stop,
    TimerDue,
    Verb,
)
from vllama.actors.core.moves import VOID, Decision, join

SLACK_S = 0.001  # a timer that rings a hair early has rung
BUSY_LOOK_S = 1.0  # while requests are in flight the idle timer does not ring more often than that


def awake(s: State, m: InstanceMessage, now: float) -> Decision:
    """The only phase that admits."""
    match m:
        case EngineUnreachable(run) if run == s.run:
            return _dying(s, now)
        case Acquire(ask, request):
            told: list[fx.InstanceEffect] = [fx.Admit(ask, s.run, "warm")]
            if s.watched and not s.serving:
                told.append(fx.TellBroker(Busy(s.model, s.lease)))
            return [ev.AskAdmitted(ask, now, "warm", request)], told
        case Release(ask) if ask in s.serving:
            if len(s.serving) > 1 or not (s.watched or s.keep_s == 0):
                return [ev.AskEnded(ask, now)], []
            idle = [fx.TellBroker(Idle(s.model, s.lease, now))] if s.watched else []
            return join(([ev.AskEnded(ask, now)], [*idle]), keeping.last_ended(s, now))
        case Start(command):
            return join(([ev.FailuresCleared()], []), mv.answer(command, Phase.AWAKE))
        case Sleep(command, level, force):
            taken: Decision = [ev.CommandTaken(command, "sleep", level)], []
            down = mv.descend(s, level, "command", now, busy=mv.busy(s))
            return join(taken, down, _abort(s, "sleep --force") if force else VOID)
        case Stop(command):
            taken = [ev.CommandTaken(command, "stop", 3)], []
            return join(taken, mv.descend(s, 3, "command", now, busy=mv.busy(s)))
        case Evict(lease, level) if lease == s.lease:
            return mv.descend(s, level, "evict", now, busy=mv.busy(s), evict=True)
        case TimerDue(timer) if timer == s.timer:
            return _idle(s, now)
    return VOID


def _idle(s: State, now: float) -> Decision:
    """The timer is looked at lazily: the warm path sets none, so it may find a newer use."""
    idle_s, after_s = now - s.last_used + SLACK_S, s.idle_after_s()
    if not s.serving and after_s is not None and idle_s >= after_s:
        return keeping.sleep(s, now, busy=mv.busy(s))
    if mv.wants_pin(s) and not s.serving and idle_s >= s.policy.pin_idle_s:
        return mv.descend(s, 1, "pin", now, busy=mv.busy(s))
    look_s = mv.first_look_s(s)
    if look_s is None or (
        s.serving and after_s == 0
    ):  # never; or with the end of the last request, which looks for itself
        return VOID
    left_s = look_s - idle_s + SLACK_S
    again_s = left_s if left_s > SLACK_S else look_s
    return mv.arm(s, max(again_s, BUSY_LOOK_S) if s.serving else again_s)


def draining(s: State, m: InstanceMessage, now: float) -> Decision:
    """No admission; the slot is asked for when the last request has ended."""
    assert s.descent is not None
    match m:
        case EngineUnreachable(run) if run == s.run:
            return join(mv.drop_slot(s), _dying(s, now))
        case Acquire():
            return mv.enqueue(s, m)
        case Release(ask) if ask in s.serving:
            over: Decision = [ev.AskEnded(ask, now)], []
            going = mv.want_slot(s, "down", s.devices, s.descent.level)
            return join(over, going) if len(s.serving) == 1 and not s.lent else over
        case Release(ask) if ask in s.waiting:
            return [ev.AskEnded(ask, now)], []
        case SlotGranted(slot, copy) if slot == s.slot and s.slot_state == "waiting":
            return join(([ev.SlotHeld(slot, copy)], []), _go_down(s, s.descent, copy, now))
        case Start(command) if not s.descent.evict:
            over = mv.deny(s, ("sleep", "stop"), Phase.AWAKE, refusals.overtaken(s, "start"))
            return join(over, mv.answer(command, Phase.AWAKE), _stay(s, now))
        case Start(command):
            return [ev.CommandTaken(command, "start", 0)], []
        case Sleep(command, level, force):
            return join(_deeper(s, s.descent, command, level), _abort(s, "sleep --force") if force else VOID)
        case Stop(command):
            return _deeper(s, s.descent, command, 3)
        case Evict(lease, level) if lease == s.lease:
            return [ev.DescentSet(max(level, s.descent.level), s.descent.why, evict=True)], []
        case CancelEvict(lease) if lease == s.lease and s.descent.evict:
            if s.descent.why == "evict" and not s.goals_down():
                return join(mv.arrive(s, Phase.AWAKE), _stay(s, now))
            return [ev.DescentSet(s.descent.level, s.descent.why, evict=False)], []
        case TimerDue(timer) if timer == s.timer and s.policy.drain_timeout_s is not None:
            return _abort(s, "drain_timeout_s has passed")
    return VOID


def falling_asleep(s: State, m: InstanceMessage, now: float) -> Decision:
    """The engine is being put to sleep; nothing can be taken back."""
    assert s.descent is not None
    match m:
        case EngineAsleep(run, level, residue, freed, took_s) if run == s.run and not s.faulted:
            residue = max(residue, 1)  # nothing at all would mean that the engine is gone
            priority, pinned = s.policy.priority, s.policy.pinned
            lease = ReturnLease(s.model, s.lease, residue, s.last_used, s.visits, priority, pinned)
            slept: Decision = (
                [ev.EngineSlept(run, level, residue, freed, took_s), ev.LeaseDropped(s.lease, residue)],
                [fx.TellBroker(lease)],
            )
            copied = level == 1 and s.slot_copy > 0
            returned = mv.drop_slot(s, copied=copied, took_s=now - s.since, level=level)
            return join(
                slept, returned, mv.move_to(Phase.ASLEEP, now), _after_sleep(s, s.descent, level, now)
            )
        case SleepFailed(run, why) if run == s.run:
            return [ev.EngineFaulted(run, why)], [fx.Kill(run)]
        case Evict():
            return VOID  # joined: the lease returns in a moment
    return _waiting_below(s, m, now)


def asleep(s: State, m: InstanceMessage, now: float) -> Decision:
    """At rest below, or (with a descent) waiting for the slot to be stopped."""
    sinking = s.descent is not None
    match m:
        case SlotGranted(slot) if slot == s.slot and s.slot_state == "waiting":
            return [ev.SlotHeld(slot), ev.PhaseChanged(Phase.STOPPING, now)], [fx.StopEngine(s.run)]
        case Acquire() if not sinking:
            return join(
                mv.queue(m), mv.want_lease(s, now, fresh=False, highest=urgency.with_one_more(s, m.priority))
            )
        case Start(command) if not sinking:
            return join(([ev.CommandTaken(command, "start", 0)], []), mv.want_lease(s, now, fresh=False))
        case Sleep(command, level) if not sinking and level <= s.level:
            return mv.answer(command, Phase.ASLEEP, s.level)
        case Sleep(command, level) if not sinking:
            return join(([ev.CommandTaken(command, "sleep", level)], []), mv.sink(s, now, "command"))
        case Stop(command) if not sinking:
            return join(([ev.CommandTaken(command, "stop", 3)], []), mv.sink(s, now, "command"))
        case Evict(lease, _) if not sinking and lease == s.residue_lease:
            return mv.sink(s, now, "residue", evict=True)
        case TimerDue(timer) if timer == s.timer and not sinking:
            return mv.sink(s, now, "idle")
    return _waiting_below(s, m, now)


def stopping(s: State, m: InstanceMessage, now: float) -> Decision:
    """The process is on its way out; its exit does the rest."""
    return _waiting_below(s, m, now)


def _waiting_below(s: State, m: InstanceMessage, now: float) -> Decision:
    """What falling_asleep, a sinking sleeper and stopping have in common: requests and commands wait for the rest."""
    match m:
        case Acquire():
            return mv.enqueue(s, m)
        case Release(ask) if ask in s.waiting:
            return [ev.AskEnded(ask, now)], []
        case Start(command):
            return [ev.CommandTaken(command, "start", 0)], []
        case Sleep(command, level) if s.descent is not None:
            return _deeper(s, s.descent, command, level)
        case Sleep(command, level):
            return [ev.CommandTaken(command, "sleep", level)], []
        case Stop(command) if s.descent is not None:
            return _deeper(s, s.descent, command, 3)
        case Stop(command):
            return join(
                mv.refuse(s.waiting, refusals.stopped(s)), ([ev.CommandTaken(command, "stop", 3)], [])
            )
    return VOID


def _deeper(s: State, descent: Descent, command: int, level: int) -> Decision:
    """Another command on the way down: the deeper one wins; stop also sends away who waits."""
    verb: Verb = "stop" if level == 3 else "sleep"
    set_: Decision = [ev.CommandTaken(command, verb, level)], []
    if level > descent.level:
        set_[0].append(ev.DescentSet(level, descent.why, descent.evict))
    over = mv.deny(s, ("start",), s.phase, refusals.overtaken(s, verb))
    gone = mv.refuse(s.waiting, refusals.stopped(s)) if level == 3 else VOID
    return join(over, gone, set_)


def _go_down(s: State, descent: Descent, copy: int, now: float) -> Decision:
    if descent.level == 1 and s.need.copy_bytes and not (copy or s.copy_bytes):
        return _without_copy(s, descent, now)
    if descent.level == 3:
        return [ev.PhaseChanged(Phase.STOPPING, now)], [fx.StopEngine(s.run)]
    sleep = fx.SleepEngine(s.run, descent.level, s.footprint_bytes)
    return [ev.PhaseChanged(Phase.FALLING_ASLEEP, now)], [sleep]


def _without_copy(s: State, descent: Descent, now: float) -> Decision:
    """The host's RAM has no room for its weights: level 2 instead, or 3 where that is unsafe; pinning is called off."""
    denied: Decision = [ev.CopyDenied(s.need.copy_bytes)], []
    if descent.why == "pin" and not descent.evict and not s.goals_down():
        return join(denied, _stay(s, now))
    deeper = Descent(s.safe_level(2), descent.why, descent.evict)
    set_: Decision = [ev.DescentSet(deeper.level, deeper.why, deeper.evict)], []
    return join(denied, set_, _go_down(s, deeper, 0, now))


def _stay(s: State, now: float) -> Decision:
    """The drain is called off: awake again, who waited is admitted, and the broker (if it watches) hears of it."""
    return join(
        mv.drop_slot(s),
        ([ev.DescentCleared()], []),
        mv.move_to(Phase.AWAKE, now),
        mv.admit(s, s.waiting, "wake", now),
        mv.arm_idle(s, s.idle_after_s()),
        ([], [mv.candidate(s, now, len(s.waiting) + len(s.serving))]) if s.watched else VOID,
    )


def _after_sleep(s: State, descent: Descent, level: int, now: float) -> Decision:
    """Asleep: on to stopped if somebody wants it deeper, up again if somebody waits, else rest."""
    answered = mv.arrive(s, Phase.ASLEEP, level)
    if descent.level > level:
        # sink() would move to ASLEEP once more: the state that it reads is still falling asleep
        return join(
            answered, ([ev.DescentSet(3, descent.why, descent.evict)], []), mv.want_slot(s, "down", s.devices)
        )
    clear: Decision = [ev.DescentCleared()], []
    if mv.wanted(s) or (descent.why == "pin" and not descent.evict and not s.goals_down()):
        return join(clear, answered, mv.want_lease(s, now, fresh=False))
    return join(clear, answered, mv.arm(s, s.policy.stop_timeout_s))


def _dying(s: State, now: float) -> Decision:
    """Nothing more is admitted; whoever comes waits for the exit and is served by the next engine."""
    faulted = ev.EngineFaulted(s.run, "the engine took no connection any more")
    return [faulted, ev.PhaseChanged(Phase.STOPPING, now)], [fx.Kill(s.run)]


def _abort(s: State, why: str) -> Decision:
    return ([], [fx.Abort(tuple(s.serving), why, tuple(s.lent))]) if mv.busy(s) else VOID
