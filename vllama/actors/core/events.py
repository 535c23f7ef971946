"""What happened: past tense, one class each. Events are all that `evolve` sees and all that the journal keeps."""

from vllama.actors.core.broker_events import BrokerEvent
from vllama.actors.core.messages import (
    How,
    Level,
    Need,
    Phase,
    Policy,
    Refusal,
    SlotKind,
    Verb,
    Why,
    fact,
)

# --- of an instance: requests (their own ring of the journal) -----------------------------------------------


@fact
class AskQueued:
    ask: int
    request: str = ""
    priority: int | None = None  # None: the model's own


@fact
class AskAdmitted:
    ask: int
    at: float
    how: How = "warm"
    request: str = ""  # of one that did not wait: who waited has said it when it was queued


@fact
class AskEnded:
    ask: int
    at: float


@fact
class AskRefused:
    ask: int
    refusal: Refusal
    request: str = ""  # of one that was refused at once


@fact
class BatchLent:
    """A worker may admit `count` requests by itself: the asks numbered from `batch` on."""

    batch: int
    count: int


@fact
class BatchReturned:
    batch: int


# --- of an instance: lifecycle ------------------------------------------------------------------------------


@fact
class InstanceCreated:
    model: str
    policy: Policy
    need: Need
    settings: tuple[tuple[str, str], ...] = ()


@fact
class InstanceConfigured:
    """The model's settings are these from now on; an engine that runs keeps those it was started with."""

    policy: Policy
    need: Need
    settings: tuple[tuple[str, str], ...] = ()


@fact
class NeedCalibrated:
    """What the next start needs, as measured."""

    need: Need


@fact
class InstanceReset:
    """The actor met a bug and begins anew; its engine is killed."""

    error: str


@fact
class CommandTaken:
    command: int
    verb: Verb
    level: Level


@fact
class CommandAnswered:
    command: int
    phase: str
    note: str = ""
    refusal: Refusal | None = None


@fact
class LeaseRequested:
    lease: int
    bytes: int
    fresh: bool
    priority: int = 0


@fact
class UrgencyChanged:
    """The highest priority of those who wait, while the request for memory does."""

    priority: int


@fact
class LeaseHeld:
    lease: int
    bytes: int
    devices: tuple[str, ...]


@fact
class LeaseDropped:
    """The lease, or the request for it, is given back; a sleeper's residue stays booked under it."""

    lease: int
    residue_bytes: int = 0


@fact
class SlotRequested:
    slot: int
    transition: SlotKind


@fact
class SlotHeld:
    """`copy_bytes`: of the host's RAM, for a sleep at level 1."""

    slot: int
    copy_bytes: int = 0


@fact
class SlotDropped:
    slot: int


@fact
class CopyDenied:
    """The host's RAM that may be used for copies of weights has no room for this one: level 1 becomes level 2."""

    bytes: int


@fact
class PhaseChanged:
    to: Phase
    at: float


@fact
class DescentSet:
    """The instance is on its way down to `level`."""

    level: Level
    why: Why
    evict: bool = False


@fact
class DescentCleared:
    pass


@fact
class EngineSpawned:
    """`sleep_mode`: it can be put to sleep."""

    run: int
    sleep_mode: bool = True


@fact
class SleepModeSet:
    """Off: vLLM's sleep mode may be what makes this model's load run out of memory. On again: it was not."""

    on: bool


@fact
class EnginePlaced:
    """The engine's process exists, after `waited_s` for the preload."""

    run: int
    pid: int
    port: int
    log: str
    mode: str
    mode_reason: str
    waited_s: float = 0.0


@fact
class EngineRose:
    """Awake: what each step of the start or wake took."""

    run: int
    steps_s: tuple[tuple[str, float], ...] = ()


@fact
class EngineMeasured:
    """What the engine's tree takes while it is awake."""

    run: int
    footprint_bytes: int


@fact
class EngineSlept:
    """Asleep: what is left and what came free (memory_delta)."""

    run: int
    level: Level
    residue_bytes: int
    freed_bytes: int
    took_s: float


@fact
class EngineFaulted:
    """A start, wake or sleep failed; the engine is killed."""

    run: int
    why: str


@fact
class WakeMissed:
    """A wake from this level failed, by its probe or before; often enough, and the level is unsafe for this model."""

    level: Level


@fact
class EngineGone:
    """The whole tree is reaped. `expected`: it was told to stop."""

    run: int
    code: int | None
    why: str
    log_tail: str
    expected: bool


@fact
class FailureCounted:
    """A failed start or an unasked exit; nothing starts before `not_before`."""

    at: float
    not_before: float
    give_up: bool
    error: str


@fact
class FailuresCleared:
    pass


@fact
class RestartNoted:
    """One automatic restart for those who wait (`reason` "start"), or one more try of a start that lost its port or whose
    profiling a neighbour disturbed (`reason` says which)."""

    reason: str


@fact
class KeepAliveSet:
    """A caller's own idle time holds: until another one does, or until the engine sleeps or ends."""

    for_s: float


@fact
class WatchChanged:
    on: bool


@fact
class TimerArmed:
    timer: int


# --- of the host --------------------------------------------------------------------------------------------


@fact
class HostNoted:
    """Something of the host that no decision hangs on: zygote_ready, zygote_lost, guard_lost, fork_unavailable."""

    what: str
    detail: str


RequestEvent = AskQueued | AskAdmitted | AskEnded | AskRefused | BatchLent | BatchReturned
InstanceEvent = (
    RequestEvent | InstanceCreated | InstanceConfigured | NeedCalibrated | InstanceReset | CommandTaken | CommandAnswered
    | LeaseRequested | UrgencyChanged | LeaseHeld | LeaseDropped | SlotRequested | SlotHeld | SlotDropped | CopyDenied
    | PhaseChanged | DescentSet | DescentCleared | SleepModeSet | EngineSpawned | EnginePlaced | EngineRose | EngineMeasured
    | EngineSlept | EngineFaulted | WakeMissed | EngineGone | FailureCounted | FailuresCleared | RestartNoted
    | WatchChanged | TimerArmed | KeepAliveSet
)  # fmt: skip
Event = InstanceEvent | BrokerEvent | HostNoted
REQUEST_EVENTS: frozenset[type] = frozenset(
    (AskQueued, AskAdmitted, AskEnded, AskRefused, BatchLent, BatchReturned)
)
