"""What actors say: frozen facts, no behaviour.

Commands come from outside and may be refused; they carry an id, never a future. Outcomes are what effects came to, stamped with
the `run`, `lease` or `slot` they belong to. Times are the shell's clock in seconds, memory is bytes per device.
"""

from enum import StrEnum
from typing import Literal

from vllama.actors.core.batches import BatchMessage
from vllama.actors.core.facts import aside as aside
from vllama.actors.core.facts import fact as fact
from vllama.actors.core.keep import KeepAlive as KeepAlive
from vllama.actors.core.measured import DeviceFound as DeviceFound
from vllama.actors.core.measured import DeviceMeasured as DeviceMeasured
from vllama.actors.core.measured import Measured as Measured
from vllama.actors.core.policies import BrokerPolicy as BrokerPolicy
from vllama.actors.core.policies import Need as Need
from vllama.actors.core.policies import Policy as Policy
from vllama.actors.core.refusal import Refusal as Refusal


class Phase(StrEnum):
    """Where an instance is in its life."""

    STOPPED = "stopped"
    QUEUED = "queued"
    STARTING = "starting"
    WAKING = "waking"
    AWAKE = "awake"
    DRAINING = "draining"
    FALLING_ASLEEP = "falling_asleep"
    ASLEEP = "asleep"
    STOPPING = "stopping"
    FAILED = "failed"


Level = int  # sleep level: 1 weights in RAM, 2 discarded, 3 process stopped; 0 not asleep
SlotKind = Literal["down", "wake", "start"]  # in the order in which they are granted
Verb = Literal["start", "sleep", "stop"]
Why = Literal["evict", "command", "idle", "residue", "pin"]
How = Literal["warm", "wake", "cold"]


# --- to an instance: commands -------------------------------------------------------------------------------


@fact
class Acquire:
    """A request wants an awake engine. `request`: the id that its answer will carry."""

    ask: int
    request: str = ""
    priority: int | None = None  # None: the model's own


@fact
class Release:
    """The request is over, or its caller left while it waited."""

    ask: int


@fact
class Start:
    """The goal is awake; clears `failed`."""

    command: int


@fact
class Sleep:
    """The goal is asleep, at least as deep as `level`; `force` aborts what is in flight."""

    command: int
    level: Level
    force: bool = False


@fact
class Stop:
    """The goal is stopped, from any phase; clears `failed`."""

    command: int


@fact
class Shutdown:
    """The server ends: stop the engine without a slot, refuse who waits."""


@fact
class Configure:
    """The model's entry, or its files, have changed. `settings`: what an engine is started with, names and digests."""

    policy: Policy
    need: Need
    settings: tuple[tuple[str, str], ...] = ()


@fact
class Calibrate:
    """The model's need as it follows from what its engine was measured to take; nothing was configured."""

    need: Need


# --- to an instance: from the broker ------------------------------------------------------------------------
@fact
class LeaseGranted:
    """The memory is the instance's own, on these devices; `bytes` (each device) may be less than asked for by a fresh start."""

    lease: int
    bytes: int
    devices: tuple[str, ...]


@fact
class LeaseRefused:
    """No memory will come of this. `exhausted`: the last start ran out of memory, and nobody is left to evict."""

    lease: int
    refusal: Refusal
    exhausted: bool = False


@fact
class SlotGranted:
    """The instance may be in transition until it returns the slot. `copy_bytes`: of the host's RAM, for a sleep at level 1."""

    slot: int
    copy_bytes: int = 0


@fact
class Offer:
    """Would you give this lease up? Answered by Candidate or EvictDeclined."""

    lease: int


@fact
class WatchUse:
    """From now on (or no more) tell when you become busy or idle."""

    lease: int
    on: bool


@fact
class Evict:
    """Give the lease back by going to `level`."""

    lease: int
    level: Level


@fact
class CancelEvict:
    """Nobody waits any more: a drain for this eviction may end."""

    lease: int


# --- to an instance: outcomes -------------------------------------------------------------------------------


@fact
class EngineLaunched:
    """The process exists; it is not ready yet. `waited_s`: for the preload, which is none of this model's start."""

    run: int
    pid: int
    port: int
    log: str
    mode: str
    mode_reason: str
    waited_s: float = 0.0


@fact
class EngineReady:
    """A start or a wake has ended well, probe included. `steps_s` says what each step took."""

    run: int
    steps_s: tuple[tuple[str, float], ...] = ()


@fact
class EngineWeighed:
    """What an engine that was awake a moment ago takes, measured (0: could not be)."""

    run: int
    footprint_bytes: int


@fact
class EngineUnready:
    """A start or a wake has failed while the process lives on."""

    run: int
    why: str


@fact
class EngineUnreachable:
    """A request met no listener at an engine that should be awake: it is dying, or deaf; its exit is not told yet."""

    run: int


@fact
class EngineAsleep:
    """The engine sleeps; `residue_bytes` is what it still holds (measured), `freed_bytes` the memory_delta."""

    run: int
    level: Level
    residue_bytes: int
    freed_bytes: int
    took_s: float = 0.0


@fact
class SleepFailed:
    """The engine did not fall asleep as it should; it is not to be trusted."""

    run: int
    why: str


@fact
class EngineExited:
    """The whole process tree is gone and reaped. `why`: "", port, profiling, oom, lost, launch."""

    run: int
    code: int | None
    why: str = ""
    log_tail: str = ""


@fact
class TimerDue:
    """The instance's timer has rung; void unless it is the latest."""

    timer: int


# --- to the broker ------------------------------------------------------------------------------------------
@fact
class RequestLease:
    """Memory for a start (`fresh`) or a wake (the whole footprint, residue included). `squeeze`: one more has to go first.
    `launched_bytes`: for a wake, the lease that its engine was launched with."""

    model: str
    lease: int
    bytes: int
    weights_bytes: int
    devices: tuple[str, ...]
    fresh: bool
    squeeze: bool = False
    visits: float = aside(default=0.0)
    priority: int = 0
    launched_bytes: int = 0


@fact
class ReturnLease:
    """A lease is given back, or a request for one withdrawn. `residue_bytes` stays with the sleeper."""

    model: str
    lease: int
    residue_bytes: int = 0
    last_used: float = 0.0
    visits: float = aside(default=0.0)
    priority: int = 0
    pinned: bool = False


@fact
class RequestSlot:
    """The instance wants to start a transition; with `copy_bytes` of the host's RAM, if they can be had."""

    model: str
    slot: int
    kind: SlotKind
    devices: tuple[str, ...]
    copy_bytes: int = 0


@fact
class ReturnSlot:
    """The transition is over (in `took_s`, to or from `level`), or no longer wanted. `copied`: see ReturnCopy."""

    model: str
    slot: int
    copied: bool = False
    took_s: float = aside(default=0.0)
    level: Level = aside(default=0)


@fact
class ReturnCopy:
    """The engine that slept at level 1 is gone, and with it its weights in the host's RAM."""

    model: str


@fact
class Candidate:
    """The lease may be evicted, to one of `levels`: `level` by itself. A first sleep at 1 takes `copy_bytes` of host RAM."""

    model: str
    lease: int
    last_used: float
    in_flight: int
    pinned: bool
    level: Level
    levels: tuple[Level, ...] = aside(default=())
    copy_bytes: int = aside(default=0)
    visits: float = aside(default=0.0)
    priority: int = 0


@fact
class Prioritize:
    """A lease that waits, or a sleeper's, has another priority, or a sleeper another pin."""

    model: str
    lease: int
    priority: int
    pinned: bool = False


@fact
class Busy:
    """The watched instance has its first request in flight."""

    model: str
    lease: int


@fact
class Idle:
    """The watched instance's last request has ended."""

    model: str
    lease: int
    at: float


@fact
class EvictDeclined:
    """Not now: the instance is in transition."""

    model: str
    lease: int


@fact
class Tick:
    """A second has passed while somebody waited."""


@fact
class Replan:
    """The broker to itself: the state has changed, see who can be served now."""


@fact
class HolderLost:
    """An instance's actor has been reset: all that it held is void, its engine is gone."""

    model: str


InstanceMessage = (
    Acquire | Release | Start | Sleep | Stop | Shutdown | Configure | Calibrate
    | LeaseGranted | LeaseRefused | SlotGranted | Offer | WatchUse | Evict | CancelEvict
    | EngineLaunched | EngineReady | EngineWeighed | EngineUnready | EngineUnreachable
    | EngineAsleep | SleepFailed | EngineExited | TimerDue | BatchMessage | KeepAlive
)  # fmt: skip
BrokerMessage = (
    RequestLease | ReturnLease | RequestSlot | ReturnSlot | ReturnCopy | Candidate | Prioritize | Busy | Idle
    | EvictDeclined | DeviceFound | Measured | Tick | Replan | HolderLost
)  # fmt: skip
Message = InstanceMessage | BrokerMessage
