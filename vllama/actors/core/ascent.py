"""Decisions on the way up: stopped, failed, queued, starting, waking."""

from vllama.actors.core import effects as fx
from vllama.actors.core import events as ev
from vllama.actors.core import moves as mv
from vllama.actors.core import refusals, urgency
from vllama.actors.core.instance_state import State
from vllama.actors.core.messages import (
    Acquire,
    CancelEvict,
    EngineLaunched,
    EngineReady,
    EngineUnready,
    Evict,
    How,
    InstanceMessage,
    LeaseGranted,
    LeaseRefused,
    Phase,
    Release,
    Sleep,
    SlotGranted,
    Start,
    Stop,
)
from vllama.actors.core.moves import VOID, Decision, join


def stopped(s: State, m: InstanceMessage, now: float) -> Decision:
    """Stopped and failed: an acquire starts it, unless it failed a moment ago or too often."""
    match m:
        case Acquire(ask, request) if s.phase is Phase.FAILED or now < s.not_before:
            given_up = s.phase is Phase.FAILED
            refusal = refusals.start_failed(s, s.error, s.not_before, now, given_up=given_up)
            return mv.refuse_at_once(ask, request, refusal)
        case Acquire():
            return join(
                mv.queue(m), mv.want_lease(s, now, fresh=True, highest=urgency.with_one_more(s, m.priority))
            )
        case Start(command):
            taken: Decision = [ev.FailuresCleared(), ev.CommandTaken(command, "start", 0)], []
            return join(taken, mv.want_lease(s, now, fresh=True))
        case Sleep(command):
            return mv.answer(command, s.phase, note="not running: nothing to put to sleep")
        case Stop(command):
            at_rest = mv.move_to(Phase.STOPPED, now) if s.phase is Phase.FAILED else VOID
            return join(([ev.FailuresCleared()], []), at_rest, mv.answer(command, Phase.STOPPED))
    return VOID


def queued(s: State, m: InstanceMessage, now: float) -> Decision:
    """Waiting for the lease, then for the slot."""
    rest = Phase.ASLEEP if s.alive else Phase.STOPPED
    match m:
        case Acquire():
            return mv.enqueue(s, m)
        case Start(command):
            return join(([ev.CommandTaken(command, "start", 0)], []), urgency.joined(s, None))
        case Release(ask) if ask in s.waiting:
            over: Decision = [ev.AskEnded(ask, now)], []
            alone = len(s.waiting) == 1 and not any(goal.verb == "start" for goal in s.goals.values())
            return join(over, _leave(s, rest, now) if alone else urgency.left(s, ask))
        case LeaseGranted(lease, size, devices) if lease == s.lease and s.lease_state == "waiting":
            held: Decision = [ev.LeaseHeld(lease, size, devices)], []
            return join(held, mv.want_slot(s, "wake" if s.alive else "start", devices))
        case LeaseRefused(lease, refusal, exhausted) if lease == s.lease and s.lease_state == "waiting":
            if exhausted and s.sleep_mode() and s.policy.on_gpu and s.can_sleep and mv.wanted(s):
                return _without_sleep_mode(s, now)
            dropped: Decision = [ev.LeaseDropped(lease)], []
            denied = join(mv.refuse(s.waiting, refusal), mv.deny(s, ("start",), rest, refusal))
            return join(dropped, denied, _rest(s, rest, now))
        case SlotGranted(slot) if slot == s.slot and s.slot_state == "waiting":
            return join(([ev.SlotHeld(slot)], []), _rise(s, now))
        case Sleep(command, level):
            gone = join(mv.refuse(s.waiting, refusals.put_to_sleep(s)), _overtake_starts(s, rest, "sleep"))
            if s.alive and level > s.level:
                taken: Decision = [ev.CommandTaken(command, "sleep", level)], []
                return join(taken, gone, _withdraw(s), mv.sink(s, now, "command"))
            return join(gone, _leave(s, rest, now), mv.answer(command, rest, s.level))
        case Stop(command):
            gone = join(mv.refuse(s.waiting, refusals.stopped(s)), _overtake_starts(s, rest, "stop"))
            if s.alive:
                taken = [ev.CommandTaken(command, "stop", 3)], []
                return join(taken, gone, _withdraw(s), mv.sink(s, now, "command"))
            return join(gone, _leave(s, rest, now), mv.answer(command, rest))
        case Evict(lease, _) if (
            s.alive and lease == s.residue_lease
        ):  # its pending wake becomes a start, after the stop
            return join(_withdraw(s), mv.sink(s, now, "residue", evict=True))
    return VOID


def coming_up(s: State, m: InstanceMessage, now: float) -> Decision:
    """Starting and waking: everybody joins, whoever wants it down waits for it to be up, but for stop."""
    match m:
        case Acquire():
            return mv.enqueue(s, m)
        case Start(command):
            taken: Decision = [ev.CommandTaken(command, "start", 0)], []
            return join(
                taken, mv.deny(s, ("sleep",), s.phase, refusals.overtaken(s, "start")), _forget_command(s)
            )
        case Release(ask) if ask in s.waiting:
            return [ev.AskEnded(ask, now)], []
        case EngineLaunched(run) if run == s.run and s.phase is Phase.STARTING:
            placed = ev.EnginePlaced(run, m.pid, m.port, m.log, m.mode, m.mode_reason, m.waited_s)
            return [placed], [fx.AwaitReady(run)]
        case EngineReady(run, steps) if run == s.run and not s.faulted:
            return _up(s, steps, now)
        case EngineUnready(run, why) if run == s.run:
            missed = [ev.WakeMissed(s.level)] if s.phase is Phase.WAKING else []
            return [ev.EngineFaulted(run, why), *missed], [fx.Kill(run)]  # its exit does the rest
        case Sleep(command, level):
            deepest = max(level, s.descent.level) if s.descent else level
            noted = ev.DescentSet(deepest, "command", s.descent.evict if s.descent else False)
            over = mv.deny(s, ("start",), s.phase, refusals.overtaken(s, "sleep"))
            return join(over, ([ev.CommandTaken(command, "sleep", level), noted], []))
        case Stop(command):
            gone = mv.refuse(s.waiting, refusals.stopped(s))
            over = mv.deny(s, ("start",), s.phase, refusals.overtaken(s, "stop"))
            killed: Decision = [ev.PhaseChanged(Phase.STOPPING, now)], [fx.Kill(s.run)]
            return join(gone, over, ([ev.CommandTaken(command, "stop", 3)], []), killed)
        case Evict(lease, level) if lease == s.lease:
            if s.descent:
                return [ev.DescentSet(max(level, s.descent.level), s.descent.why, evict=True)], []
            return [ev.DescentSet(level, "evict", evict=True)], []
        case CancelEvict(lease) if lease == s.lease and s.descent and s.descent.evict:
            if s.descent.why == "evict":
                return [ev.DescentCleared()], []
            return [ev.DescentSet(s.descent.level, s.descent.why, evict=False)], []
    return VOID


def _forget_command(s: State) -> Decision:
    """A sleep that was noted is void; the broker's wish, if it has joined, stays."""
    if s.descent is None:
        return VOID
    if s.descent.evict:
        return [ev.DescentSet(s.policy.sleep_level, "evict", evict=True)], []
    return [ev.DescentCleared()], []


def _without_sleep_mode(s: State, now: float) -> Decision:
    """Out of memory with nobody left to evict: sleep mode itself may take it (vLLM's trap 24), so once more without."""
    off: Decision = [ev.LeaseDropped(s.lease), ev.SleepModeSet(on=False)], []
    return join(off, mv.want_lease(s, now, fresh=True))


def _rise(s: State, now: float) -> Decision:
    """Memory and slot are there: wake the engine that sleeps, or spawn one."""
    if s.alive:
        wake = fx.WakeEngine(s.run, s.level, s.footprint_bytes)
        return [ev.PhaseChanged(Phase.WAKING, now)], [wake]
    sleep_mode = s.sleep_mode()
    spawn = fx.Launch(s.run + 1, s.lease_bytes, s.devices, sleep_mode)
    return [ev.EngineSpawned(s.run + 1, sleep_mode), ev.PhaseChanged(Phase.STARTING, now)], [spawn]


def _up(s: State, steps: tuple[tuple[str, float], ...], now: float) -> Decision:
    """Awake: who waited is admitted and served first, then a descent that was noted meanwhile begins."""
    how: How = "wake" if s.phase is Phase.WAKING else "cold"
    rose: Decision = [ev.EngineRose(s.run, steps)], []
    # The next start will not wait for the preload: it is no part of what a start takes.
    took_s = now - s.since - (s.preload_s if s.phase is Phase.STARTING else 0.0)
    up = join(
        rose,
        mv.drop_slot(s, took_s=took_s, level=s.level or 3),
        mv.move_to(Phase.AWAKE, now),
        mv.admit(s, s.waiting, how, now),
        mv.arrive(s, Phase.AWAKE),
        ([], [fx.Weigh(s.run)]) if s.phase is Phase.STARTING or not s.footprint_bytes else VOID,
    )
    descent, busy = s.descent, bool(s.waiting)
    if descent is None:
        return join(up, mv.arm_idle(s, mv.first_look_s(s)), _candidate(s, now))
    if descent.evict:
        return join(up, mv.descend(s, descent.level, descent.why, now, busy=busy, evict=True))
    if busy or wanted_start(s):
        over = mv.deny(s, ("sleep",), Phase.AWAKE, refusals.wanted_awake(s))
        return join(
            up, ([ev.DescentCleared()], []), over, mv.arm_idle(s, s.idle_after_s()), _candidate(s, now)
        )
    return join(up, mv.descend(s, descent.level, descent.why, now, busy=False))


def wanted_start(s: State) -> bool:
    return any(goal.verb == "start" for goal in s.goals.values())


def _candidate(s: State, now: float) -> Decision:
    """The broker watches: tell it that this lease may be evicted from now on."""
    return ([], [mv.candidate(s, now, len(s.waiting))]) if s.watched else VOID


def _overtake_starts(s: State, rest: Phase, by: str) -> Decision:
    return mv.deny(s, ("start",), rest, refusals.overtaken(s, by))


def _withdraw(s: State) -> Decision:
    return join(mv.drop_slot(s), mv.drop_lease(s))


def _leave(s: State, rest: Phase, now: float) -> Decision:
    return join(_withdraw(s), _rest(s, rest, now))


def _rest(s: State, rest: Phase, now: float) -> Decision:
    again = mv.arm(s, s.policy.stop_timeout_s) if rest is Phase.ASLEEP else VOID
    return join(mv.move_to(rest, now), again)
