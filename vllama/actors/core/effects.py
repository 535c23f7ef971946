"""What a core wants done, as data. Inline effects cannot fail; slow ones have exactly one outcome, failure included."""

from vllama.actors.core.batches import GiveBatch, Recall
from vllama.actors.core.messages import BrokerMessage, How, InstanceMessage, Level, Refusal, fact

# --- inline: done at once, in order -------------------------------------------------------------------------


@fact
class Admit:
    """The request may go to the engine of `run` now."""

    ask: int
    run: int
    how: How


@fact
class Refuse:
    """The request gets no engine."""

    ask: int
    refusal: Refusal


@fact
class Reply:
    """The command is answered: by a refusal, or by the phase reached."""

    command: int
    phase: str
    level: Level
    note: str = ""
    refusal: Refusal | None = None


@fact
class Abort:
    """Requests in flight are cut off; those too that were admitted on a batch and are not reported yet."""

    asks: tuple[int, ...]
    why: str
    batches: tuple[int, ...] = ()


@fact
class TellBroker:
    """A message of an instance to the broker."""

    message: BrokerMessage


@fact
class TellInstance:
    """A message of the broker to an instance."""

    model: str
    message: InstanceMessage


@fact
class TellSelf:
    """The broker looks again once its state has changed."""

    message: BrokerMessage


@fact
class SetTimer:
    """TimerDue(timer) when `delay_s` has passed; replaces the actor's earlier timer."""

    timer: int
    delay_s: float


# --- slow: one task, one outcome ----------------------------------------------------------------------------


@fact
class Launch:
    """Create the engine's process, on GPUs with vLLM's sleep mode or without -> EngineLaunched | EngineExited."""

    run: int
    lease_bytes: int
    devices: tuple[str, ...]
    sleep_mode: bool = True


@fact
class AwaitReady:
    """Wait for the engine, warm it up -> EngineReady | EngineUnready (or the exit alone)."""

    run: int


@fact
class WakeEngine:
    """The wake recipe of `level`, then the probe -> EngineReady | EngineUnready."""

    run: int
    level: Level
    footprint_bytes: int


@fact
class Weigh:
    """Measure what the engine takes; nobody waits for it -> EngineWeighed."""

    run: int


@fact
class SleepEngine:
    """Put it to sleep, check that it sleeps, measure -> EngineAsleep | SleepFailed."""

    run: int
    level: Level
    footprint_bytes: int


@fact
class StopEngine:
    """A graceful stop -> EngineExited."""

    run: int


@fact
class Kill:
    """Kill the whole tree at once -> EngineExited."""

    run: int


@fact
class Measure:
    """Measure every device -> Measured(epoch)."""

    epoch: int


@fact
class SetTick:
    """Tick after `delay_s`; asked for while none is pending."""

    delay_s: float


InstanceEffect = (
    Admit | Refuse | Reply | Abort | TellBroker | SetTimer
    | Launch | AwaitReady | WakeEngine | Weigh | SleepEngine | StopEngine | Kill | GiveBatch | Recall
)  # fmt: skip
BrokerEffect = TellInstance | TellSelf | Measure | SetTick
Effect = InstanceEffect | BrokerEffect
