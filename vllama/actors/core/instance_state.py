"""What an instance knows, and how each event changes it.

`evolve` is total: it cannot refuse a fact. It updates the actor's private state in place, each event of the warm path in O(1);
folding a journal starts from a fresh state or from a snapshot's copy.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

from vllama.actors.core import events as ev
from vllama.actors.core.demand import VISIT_S, visited
from vllama.actors.core.messages import Level, Need, Phase, Policy, SlotKind, Verb, Why, fact


@fact
class Goal:
    """What a command that is not yet answered wants."""

    verb: Verb
    level: Level


@fact
class Descent:
    """Where a draining instance is going and who asked: `why` is the first reason, `evict` joins the broker to it."""

    level: Level
    why: Why
    evict: bool


@dataclass(slots=True)
class State:
    """One model's instance. `lease`, `slot`, `run` and `timer` are fencing numbers: the latest handed out."""

    model: str = ""
    policy: Policy = field(default_factory=Policy)
    need: Need = field(default_factory=lambda: Need(0, 0))
    settings: tuple[tuple[str, str], ...] = ()  # what the next engine is started with: names and digests
    launched: tuple[tuple[str, str], ...] = ()  # what the latest engine was started with

    phase: Phase = Phase.STOPPED
    since: float = 0.0
    level: Level = 0
    last_used: float = 0.0
    visits: float = 0.0  # how often it was asked for lately: see demand.py
    visited_at: float = 0.0
    waiting: dict[int, None] = field(default_factory=dict)
    serving: dict[int, None] = field(default_factory=dict)
    lent: dict[int, int] = field(default_factory=dict)  # batches that workers hold: how many tickets each
    own_priorities: dict[int, int] = field(default_factory=dict)  # of those who wait and said one
    urgency: int = 0  # the highest that the broker knows of those who wait for memory
    goals: dict[int, Goal] = field(default_factory=dict)
    descent: Descent | None = None

    lease: int = 0
    lease_state: str = ""  # "", waiting, held
    lease_bytes: int = 0
    devices: tuple[str, ...] = ()
    residue_lease: int = 0  # the lease under which the broker books what the sleeper still holds
    residue_bytes: int = 0
    slot: int = 0
    slot_state: str = ""  # "", waiting, held
    slot_kind: SlotKind = "start"
    slot_copy: int = 0  # of the host's RAM, granted with the slot
    copy_bytes: int = 0  # what this engine holds of it since its first sleep at level 1, awake too
    copy_denied: bool = False  # there was no room for that the last time it was asked for

    run: int = 0
    alive: bool = False
    was_ready: bool = False  # this run has been awake once
    faulted: str = ""
    pid: int = 0
    port: int = 0
    log: str = ""
    mode: str = ""
    mode_reason: str = ""
    preload_s: float = 0.0  # what this run waited for the preload
    launched_bytes: int = 0  # the lease that this run was launched with
    footprint_bytes: int = 0
    residue_first: int = 0  # what this run's first sleep left
    residue_last: int = 0  # and its latest one
    residue_grown: bool = False
    can_sleep: bool = True  # this run was started so that it can
    sleep_mode_off: str = ""  # trap 24: "tried" without, "proven" once a start without it has served
    pinned_once: bool = False  # this run has had its one early sleep and wake at level 1
    misses: dict[int, int] = field(default_factory=dict)  # failed wakes by level

    failures: tuple[float, ...] = ()
    not_before: float = 0.0
    error: str = ""
    restarts_noted: tuple[str, ...] = ()
    watched: bool = False
    timer: int = 0
    keep_s: float | None = None  # a caller's own idle time; below 0: never idle; None: the policy's

    def copy(self) -> "State":
        """An independent copy: the containers are the only mutable parts."""
        # Not dataclasses.replace: a snapshot may copy a hundred, on a request's way.
        twin = State(*_values(self))
        twin.waiting, twin.serving, twin.lent = dict(self.waiting), dict(self.serving), dict(self.lent)
        twin.own_priorities, twin.goals = dict(self.own_priorities), dict(self.goals)
        twin.misses = dict(self.misses)
        return twin

    def levels(self, policy: Policy) -> tuple[Level, ...]:
        """The sleep levels among which the broker may choose."""
        fixed = self.safe_level(policy.sleep_level)
        if not policy.any_level or fixed == 3:
            return (fixed,)
        return tuple(level for level in (1, 2, 3) if self.safe_level(level) == level)

    def safe_level(self, level: Level) -> Level:
        """The level to go to instead: deeper where wakes have failed, stopped where the residue has grown."""
        if self.residue_grown or not self.can_sleep:
            return 3
        while level < 3 and self.misses.get(level, 0) >= self.policy.misses_max:
            level += 1
        return level

    def sleep_mode(self) -> bool:
        """The next engine will be able to sleep."""
        deepest_only = self.policy.sleep_level == self.policy.unload_mode == 3
        return not self.policy.on_gpu or not (deepest_only or self.sleep_mode_off)

    def stale(self) -> tuple[str, ...]:
        """What has changed since this engine was started: it counts from the next start on."""
        then, now = dict(self.launched), dict(self.settings)
        names = sorted(then.keys() | now.keys()) if self.alive else ()
        return tuple(name for name in names if then.get(name) != now.get(name))

    def idle_after_s(self) -> float | None:
        """Idle for so long, it goes to sleep; None: never by itself."""
        if self.keep_s is None:
            return self.policy.unload_timeout
        return self.keep_s if self.keep_s >= 0 else None

    def goals_down(self) -> bool:
        """A command wants it asleep or stopped."""
        return any(goal.verb != "start" for goal in self.goals.values())


_values: Callable[[State], tuple[Any, ...]] = attrgetter(*(each.name for each in fields(State)))


def evolve(state: State, event: ev.Event) -> None:
    """Take a fact in."""
    _CHANGES[type(event)](state, event)


def _created(s: State, e: ev.InstanceCreated) -> None:
    s.model, s.policy, s.need, s.settings = e.model, e.policy, e.need, e.settings


def _configured(s: State, e: ev.InstanceConfigured) -> None:
    if s.settings != e.settings:
        s.sleep_mode_off = ""
    s.policy, s.need, s.settings = e.policy, e.need, e.settings


def _calibrated(s: State, e: ev.NeedCalibrated) -> None:
    s.need = e.need


def _reset(s: State, _: ev.InstanceReset) -> None:
    fresh = State(
        model=s.model, policy=s.policy, need=s.need, settings=s.settings,
        run=s.run, lease=s.lease, slot=s.slot, timer=s.timer,
    )  # fmt: skip
    for each in fields(State):
        setattr(s, each.name, getattr(fresh, each.name))


def _queued(s: State, e: ev.AskQueued) -> None:
    s.waiting[e.ask] = None
    if e.priority is not None:
        s.own_priorities[e.ask] = e.priority


def _waits_no_more(s: State, ask: int) -> None:
    s.waiting.pop(ask, None)
    if s.own_priorities:
        s.own_priorities.pop(ask, None)


def _admitted(s: State, e: ev.AskAdmitted) -> None:
    _waits_no_more(s, e.ask)
    s.serving[e.ask] = None
    s.last_used = e.at
    if e.at - s.visited_at >= VISIT_S:
        s.visits, s.visited_at = visited(s.visits, e.at - s.visited_at), e.at


def _ended(s: State, e: ev.AskEnded) -> None:
    if e.ask in s.serving:
        del s.serving[e.ask]
        s.last_used = e.at
    else:
        _waits_no_more(s, e.ask)


def _refused(s: State, e: ev.AskRefused) -> None:
    _waits_no_more(s, e.ask)


def _lent(s: State, e: ev.BatchLent) -> None:
    s.lent[e.batch] = e.count


def _returned(s: State, e: ev.BatchReturned) -> None:
    s.lent.pop(e.batch, None)


def _command_taken(s: State, e: ev.CommandTaken) -> None:
    s.goals[e.command] = Goal(e.verb, e.level)


def _command_answered(s: State, e: ev.CommandAnswered) -> None:
    s.goals.pop(e.command, None)


def _lease_requested(s: State, e: ev.LeaseRequested) -> None:
    s.lease, s.lease_state, s.lease_bytes, s.urgency = e.lease, "waiting", e.bytes, e.priority


def _urgency_changed(s: State, e: ev.UrgencyChanged) -> None:
    s.urgency = e.priority


def _lease_held(s: State, e: ev.LeaseHeld) -> None:
    s.lease_state, s.lease_bytes, s.devices = "held", e.bytes, e.devices
    s.residue_lease = s.residue_bytes = 0  # the new lease covers what the sleeper still held


def _lease_dropped(s: State, e: ev.LeaseDropped) -> None:
    if e.lease == s.lease:
        s.lease_state, s.lease_bytes, s.watched = "", 0, False
    if e.residue_bytes:
        s.residue_lease, s.residue_bytes = e.lease, e.residue_bytes
    elif e.lease == s.residue_lease:
        s.residue_lease = s.residue_bytes = 0


def _slot_requested(s: State, e: ev.SlotRequested) -> None:
    s.slot, s.slot_state, s.slot_kind = e.slot, "waiting", e.transition


def _slot_held(s: State, e: ev.SlotHeld) -> None:
    s.slot_state, s.slot_copy = "held", e.copy_bytes
    s.copy_denied = s.copy_denied and not e.copy_bytes


def _slot_dropped(s: State, _: ev.SlotDropped) -> None:
    s.slot_state, s.slot_copy = "", 0


def _copy_denied(s: State, _: ev.CopyDenied) -> None:
    s.copy_denied = True


def _phase_changed(s: State, e: ev.PhaseChanged) -> None:
    s.phase, s.since = e.to, e.at
    if e.to is Phase.AWAKE:
        s.level, s.was_ready, s.restarts_noted, s.error = 0, True, (), ""
        s.last_used = max(s.last_used, e.at)
        s.sleep_mode_off = s.sleep_mode_off and "proven"


def _descent_set(s: State, e: ev.DescentSet) -> None:
    s.descent = Descent(e.level, e.why, e.evict)


def _descent_cleared(s: State, _: ev.DescentCleared) -> None:
    s.descent = None


def _spawned(s: State, e: ev.EngineSpawned) -> None:
    s.run, s.alive, s.was_ready, s.faulted, s.level = e.run, True, False, "", 0
    s.can_sleep, s.launched_bytes = e.sleep_mode, s.lease_bytes
    if s.launched != s.settings:
        s.launched, s.footprint_bytes = s.settings, 0  # what was measured was another configuration
    s.pid = s.residue_first = s.residue_last = 0
    s.residue_grown = s.pinned_once = s.copy_denied = False


def _sleep_mode_set(s: State, e: ev.SleepModeSet) -> None:
    s.sleep_mode_off = "" if e.on else "tried"


def _placed(s: State, e: ev.EnginePlaced) -> None:
    s.pid, s.port, s.log, s.mode, s.mode_reason = e.pid, e.port, e.log, e.mode, e.mode_reason
    s.preload_s = e.waited_s


def _measured(s: State, e: ev.EngineMeasured) -> None:
    s.footprint_bytes = e.footprint_bytes


def _rose(_: State, __: ev.EngineRose) -> None:
    """Its phase says it."""


def _slept(s: State, e: ev.EngineSlept) -> None:
    s.level = e.level
    if e.level == 1:
        s.pinned_once, s.copy_bytes = True, s.copy_bytes or s.slot_copy
    if s.descent is None or s.descent.why != "pin":
        s.keep_s = None
    s.residue_first, s.residue_last = s.residue_first or e.residue_bytes, e.residue_bytes
    s.residue_grown = e.residue_bytes > s.residue_first + s.policy.residue_growth_max_bytes


def _missed(s: State, e: ev.WakeMissed) -> None:
    s.misses[e.level] = s.misses.get(e.level, 0) + 1


def _faulted(s: State, e: ev.EngineFaulted) -> None:
    s.faulted = e.why


def _gone(s: State, e: ev.EngineGone) -> None:
    s.alive, s.level, s.pid, s.copy_bytes, s.descent, s.keep_s = False, 0, 0, 0, None, None
    s.serving.clear()  # their connections break by themselves; their Releases are void
    s.lent.clear()  # what is admitted on them from now on meets nobody, and asks again
    if not e.expected:
        s.error = s.faulted or e.why or f"exit code {e.code}"


def _failure_counted(s: State, e: ev.FailureCounted) -> None:
    s.failures = (*s.failures, e.at)[-s.policy.restarts_max :]
    s.not_before, s.error = e.not_before, e.error


def _failures_cleared(s: State, _: ev.FailuresCleared) -> None:
    s.failures, s.not_before, s.error = (), 0.0, ""


def _restart_noted(s: State, e: ev.RestartNoted) -> None:
    s.restarts_noted = (*s.restarts_noted, e.reason)


def _watch_changed(s: State, e: ev.WatchChanged) -> None:
    s.watched = e.on


def _kept_alive(s: State, e: ev.KeepAliveSet) -> None:
    s.keep_s = e.for_s


def _timer_armed(s: State, e: ev.TimerArmed) -> None:
    s.timer = e.timer


_CHANGES: dict[type, Callable[[State, Any], None]] = {
    ev.InstanceCreated: _created,
    ev.InstanceConfigured: _configured,
    ev.NeedCalibrated: _calibrated,
    ev.InstanceReset: _reset,
    ev.AskQueued: _queued,
    ev.AskAdmitted: _admitted,
    ev.AskEnded: _ended,
    ev.AskRefused: _refused,
    ev.BatchLent: _lent,
    ev.BatchReturned: _returned,
    ev.CommandTaken: _command_taken,
    ev.CommandAnswered: _command_answered,
    ev.LeaseRequested: _lease_requested,
    ev.UrgencyChanged: _urgency_changed,
    ev.LeaseHeld: _lease_held,
    ev.LeaseDropped: _lease_dropped,
    ev.SlotRequested: _slot_requested,
    ev.SlotHeld: _slot_held,
    ev.SlotDropped: _slot_dropped,
    ev.CopyDenied: _copy_denied,
    ev.PhaseChanged: _phase_changed,
    ev.DescentSet: _descent_set,
    ev.DescentCleared: _descent_cleared,
    ev.EngineSpawned: _spawned,
    ev.SleepModeSet: _sleep_mode_set,
    ev.EnginePlaced: _placed,
    ev.EngineRose: _rose,
    ev.EngineMeasured: _measured,
    ev.EngineSlept: _slept,
    ev.EngineFaulted: _faulted,
    ev.WakeMissed: _missed,
    ev.EngineGone: _gone,
    ev.FailureCounted: _failure_counted,
    ev.FailuresCleared: _failures_cleared,
    ev.RestartNoted: _restart_noted,
    ev.WatchChanged: _watch_changed,
    ev.TimerArmed: _timer_armed,
    ev.KeepAliveSet: _kept_alive,
}
