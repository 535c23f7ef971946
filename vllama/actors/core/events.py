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


@fact
class AskAdmitted:
    ask: int
    at: float
    how: How = "warm"


@fact
class AskEnded:
    ask: int
    at: float


@fact
class AskRefused:
    ask: int
    refusal: Refusal


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
    slot: int


@fact
class SlotDropped:
    slot: int


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
    run: int


@fact
class EnginePlaced:
    """The engine's process exists."""

    run: int
    pid: int
    port: int
    log: str
    mode: str
    mode_reason: str


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


RequestEvent = AskQueued | AskAdmitted | AskEnded | AskRefused
InstanceEvent = (
    RequestEvent | InstanceCreated | InstanceConfigured | InstanceReset | CommandTaken | CommandAnswered
    | LeaseRequested | LeaseHeld | LeaseDropped | SlotRequested | SlotHeld | SlotDropped
    | PhaseChanged | DescentSet | DescentCleared | EngineSpawned | EnginePlaced | EngineRose | EngineMeasured | EngineSlept
    | EngineFaulted | WakeMissed | EngineGone | FailureCounted | FailuresCleared | RestartNoted | WatchChanged | TimerArmed
)  # fmt: skip
Event = InstanceEvent | BrokerEvent | HostNoted
REQUEST_EVENTS: frozenset[type] = frozenset((AskQueued, AskAdmitted, AskEnded, AskRefused))
