"""A dry run of the real rule: the cores decide on copies of the states what would happen if a model were asked for now.

Nothing is journalled, nothing is told to anybody. Every effect has the outcome that it would have if all went well, at once:
engines sleep, stop and rise, a measurement shows what that gives back, and who drains has served its last request. Time passes
only where nothing else can happen: a second each, as for the broker's own ticks.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from vllama.actors.core import broker, instance
from vllama.actors.core import effects as fx
from vllama.actors.core import events as ev
from vllama.actors.core import messages as msg
from vllama.actors.core.batches import BatchBack
from vllama.actors.core.instance_state import State
from vllama.actors.core.messages import Phase
from vllama.actors.core.state import BROKER, StateManager
from vllama.actors.record import Record

ASK = -1  # the number of the request that is rehearsed; no real one has it
TURNS_MAX = 100_000
NEVER_SLEPT_PART = 10  # where no model has slept yet, a sleeper is thought to keep this part


@dataclass
class Rehearsed:
    """What came of it: the answer, when, and all that happened on the way."""

    records: list[Record] = field(default_factory=list)
    outcome: str = ""  # warm, cold, wake; refused; "" when it came to no end
    level: int = 0  # from which it would wake
    refusal: msg.Refusal | None = None
    passed_s: float = 0.0  # while only time could help
    drained: dict[str, int] = field(default_factory=dict)  # who would be waited for: requests in flight


class Rehearsal:
    """Copies of the states, and the mail between them."""

    def __init__(self, states: StateManager, model: str, own: State, now: float) -> None:
        self._states = states
        self._model = model
        self._begun = self._now = now
        self._broker = states.broker().copy()
        self._instances: dict[str, State] = {model: own}
        self._mail: deque[tuple[str, Any]] = deque()
        self._used = {d.id: dict(d.used_by) for d in self._broker.devices.values()}
        self._free = {d.id: d.free_measured for d in self._broker.devices.values()}
        for lease in self._broker.shelves.returning.values():  # what is on its way back has come
            for device in lease.devices:
                self._used[device][lease.model] = lease.residue_bytes
                self._free[device] += lease.gives_back
        self._tick = self._broker.ticking
        self._seen = Rehearsed()
        slept = sorted(k.residue_bytes for k in self._broker.known.values() if k.residue_bytes)
        # of one that has never slept: as others; 0: nobody has
        self._usual_residue = slept[len(slept) // 2] if slept else 0
        self._under_way = [s.model for s in states.instances() if s.phase in _PASSING]

    def run(self) -> Rehearsed:
        """Ask for the model, and let happen what would."""
        turns = 0
        if self._broker.measuring:  # its answer is on its way
            self._tell(BROKER, msg.Measured(self._broker.epoch, self._measured()))
        self._tell(self._model, msg.Acquire(ASK))
        while not self._seen.outcome and turns < TURNS_MAX:
            if self._mail:
                self._turn(*self._mail.popleft())
                turns += 1
            elif self._under_way:
                self._end_of(self._under_way.pop(0))
            elif self._tick:
                self._tick = False
                self._now += 1.0
                self._tell(BROKER, msg.Tick())
            else:
                break
        self._seen.passed_s = self._now - self._begun
        return self._seen

    def _tell(self, actor: str, message: object) -> None:
        self._mail.append((actor, message))

    def _instance(self, name: str) -> State:
        found = self._instances.get(name)
        if found is None:
            real = self._states.instance(name)
            found = self._instances[name] = real.copy() if real is not None else State(model=name)
        return found

    def _turn(self, actor: str, message: Any) -> None:
        events: list[Any]
        effects: list[Any]
        if actor == BROKER:
            events, effects = broker.decide(self._broker, message, self._now)
        else:
            events, effects = instance.decide(self._instance(actor), message, self._now)
        for event in events:
            seq = len(self._seen.records) + 1
            self._seen.records.append(Record(seq, self._now, actor, (type(message).__name__, 0), event))
            if actor == BROKER:
                broker.evolve(self._broker, event)
            else:
                instance.evolve(self._instance(actor), event)
        for effect in effects:
            self._perform(actor, effect)
        if any(isinstance(event, ev.PhaseChanged) and event.to is Phase.DRAINING for event in events):
            self._drain(actor)

    def _perform(self, actor: str, effect: fx.Effect) -> None:
        match effect:
            case fx.TellBroker(message) | fx.TellSelf(message):
                self._tell(BROKER, message)
            case fx.TellInstance(model, message):
                self._tell(model, message)
            case fx.SetTick():
                self._tick = True
            case fx.Measure(epoch):
                self._tell(BROKER, msg.Measured(epoch, self._measured()))
            case fx.Admit(ask, _, how) if ask == ASK:
                self._seen.outcome = self._seen.outcome or how
            case fx.Refuse(ask, refusal) if ask == ASK:
                self._seen.outcome, self._seen.refusal = "refused", refusal
            case (
                fx.Launch()
                | fx.WakeEngine()
                | fx.AwaitReady()
                | fx.SleepEngine()
                | fx.StopEngine()
                | fx.Kill()
            ):
                self._engine(actor, effect)

    # --- engines, as if all went well ---------------------------------------------------------------------------------

    def _engine(self, name: str, effect: fx.Effect) -> None:
        state = self._instance(name)
        match effect:
            case fx.WakeEngine(run, level):
                if name == self._model:
                    self._seen.outcome, self._seen.level = "wake", level
                self._takes(state, state.lease_bytes)
                self._tell(name, msg.EngineReady(run))
            case fx.Launch(run):
                if name == self._model:
                    self._seen.outcome = "cold"
                self._takes(state, state.lease_bytes)
                self._tell(name, msg.EngineLaunched(run, 0, 0, "", "", ""))
            case fx.AwaitReady(run):
                self._tell(name, msg.EngineReady(run))
            case fx.SleepEngine(run, level):
                self._asleep(state, run, level)
            case fx.StopEngine(run) | fx.Kill(run):
                self._takes(state, 0)
                self._tell(name, msg.EngineExited(run, 0))

    def _asleep(self, state: State, run: int, level: int) -> None:
        holds = state.footprint_bytes or state.lease_bytes
        residue = min(state.residue_last or self._usual_residue or holds // NEVER_SLEPT_PART, holds)
        self._takes(state, residue)
        self._tell(state.model, msg.EngineAsleep(run, level, residue, max(holds - residue, 0)))

    def _drain(self, name: str) -> None:
        """What is in flight would be waited for; then it goes on."""
        state = self._instance(name)
        in_flight = len(state.serving)
        if in_flight:
            self._seen.drained[name] = in_flight
        for batch in tuple(state.lent):
            self._tell(name, BatchBack(batch))
        for ask in tuple(state.serving):
            self._tell(name, msg.Release(ask))

    def _end_of(self, name: str) -> None:
        """What was under way when the question was asked comes to its end."""
        state = self._instance(name)
        if state.faulted:  # it is being killed
            self._takes(state, 0)
            self._tell(name, msg.EngineExited(state.run, None))
            return
        match state.phase:
            case Phase.STARTING | Phase.WAKING:
                self._tell(name, msg.EngineReady(state.run))
            case Phase.FALLING_ASLEEP if state.descent is not None:
                self._asleep(state, state.run, state.descent.level)
            case Phase.STOPPING:
                self._takes(state, 0)
                self._tell(name, msg.EngineExited(state.run, 0))
            case Phase.DRAINING:
                self._drain(name)

    # --- memory -------------------------------------------------------------------------------------------------------

    def _takes(self, state: State, size: int) -> None:
        """The device is measured with it from now on."""
        for device in state.devices:
            before = self._used[device].get(state.model, 0)
            self._used[device][state.model] = size
            self._free[device] = max(self._free[device] + before - size, 0)

    def _measured(self) -> tuple[msg.DeviceMeasured, ...]:
        return tuple(
            msg.DeviceMeasured(
                d.id,
                self._free[d.id],
                d.shared_bytes,
                tuple((m, x) for m, x in self._used[d.id].items() if x),
            )
            for d in self._broker.devices.values()
        )


_PASSING = (Phase.STARTING, Phase.WAKING, Phase.FALLING_ASLEEP, Phase.STOPPING, Phase.DRAINING)
