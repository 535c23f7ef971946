"""The real instance and broker cores over engines that do everything by the figures: no faults, only time.

A request's wait lasts from its arrival until its device begins to serve it: for its model, and in the engine's own queue.
"""

import heapq
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.policy import figures
from bench.policy.traces import Trace
from tests.simulation.stage import Stage
from vllama.actors.actor import Actor
from vllama.actors.core import broker, instance
from vllama.actors.core import effects as fx
from vllama.actors.core import events as ev
from vllama.actors.core import messages as msg
from vllama.actors.core.broker_events import BrokerCreated
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.instance_state import State
from vllama.actors.core.state import BROKER

QUIET_S = 30.0  # between the warm-up and the trace
DOWN = (msg.Phase.ASLEEP, msg.Phase.FALLING_ASLEEP, msg.Phase.STOPPING)  # nothing is left to drain


class NoJournal:
    """Keeps nothing: a million requests are not to be remembered. It only numbers the records."""

    def __init__(self) -> None:
        self.seq = 0

    def follow(self, _: str, __: object) -> None:
        pass

    def append(self, _: str, __: object, ___: object, ____: float) -> int:
        self.seq += 1
        return self.seq


@dataclass
class Engine:
    size: figures.Size
    run: int = 0
    devices: tuple[str, ...] = ()
    memory: int = 0
    pinned: bool = False  # it has slept at level 1: its copy in the host's RAM is there


@dataclass
class Gpu:
    """One device: so many requests at once, the others wait in the order in which they were admitted."""

    free: int = figures.CONCURRENT_MAX
    queue: deque[int] = field(default_factory=deque)


class Edge:
    """Where requests come in: at once to their model's instance. A product that holds them back here says so in a subclass."""

    def __init__(self, world: "World") -> None:
        self.world = world

    def arrive(self, ask: int) -> None:
        self.world.acquire(ask)

    def settled(self, ask: int) -> None:
        """Admitted, or refused."""


class World(Stage):
    """One run: a trace, a policy, what came of it. Another machine than that of the figures is a subclass."""

    kind: Literal["cuda", "cpu"] = "cuda"
    device_bytes = figures.DEVICE_BYTES
    stop_s = figures.STOP_S

    def __init__(
        self,
        trace: Trace,
        broker_policy: msg.BrokerPolicy,
        policy: msg.Policy | None = None,
        edge: Callable[["World"], Edge] = Edge,
    ) -> None:
        super().__init__()
        self.now = 0.0
        self.journal = NoJournal()  # type: ignore[assignment]
        self.trace = trace
        self.base = 0.0  # when the trace begins, on the clock of the actors
        self._box: deque[tuple[str, object, int]] = deque()
        self._delivering = False
        self.broker: Actor[BrokerState] = self.actor(BROKER, BrokerState(), broker)
        broker.evolve(self.broker.state, BrokerCreated(broker_policy))
        self.gpus = {f"gpu{i}": Gpu() for i in range(trace.devices)}
        for device in self.gpus:
            self.broker.turn(msg.DeviceFound(device, self.kind, self.device_bytes))
        self.names = [f"m{i:02}" for i in range(len(trace.sizes))]
        self.actors: dict[str, Actor[Any]] = {BROKER: self.broker}
        self.engines: dict[str, Engine] = {}
        policy = policy or msg.Policy(on_gpu=True)
        for name, size in zip(self.names, trace.sizes, strict=True):
            actor: Actor[State] = self.actor(name, State(), instance)
            copy = size.weights if self.kind == "cuda" else 0
            need = msg.Need(size.footprint, size.weights, (), copy)
            instance.evolve(actor.state, ev.InstanceCreated(name, policy, need))
            self.actors[name] = actor
            self.engines[name] = Engine(size)
        count = len(trace.arrivals)
        self.arrived = array("d", [0.0]) * count
        self.waits = array("d", [-1.0]) * count  # of those that were served
        self.models = array("i", [0]) * count
        self.serve_s = array("d", [0.0]) * count
        self.on: list[str] = [""] * count  # the device that serves it
        self.open = 0  # asked for, and not over yet
        self.refusals = 0
        self.refused_of = [0] * len(self.names)
        self.evicted_of: dict[str, int] = {}  # how often a model that was up was made to go
        self.finished_of = [0] * len(self.names)  # by the end of the trace
        self.swaps = 0
        self.drain_max_s = self.down_max_s = self.up_max_s = 0.0
        self.end = 0.0
        self._told_to_go: dict[str, float] = {}
        self.edge = edge(self)
        self.warming: set[int] = set()

    # --- time and mail ------------------------------------------------------------------------------------------------

    def mail(self, actor: str, message: object, cause: int = 0) -> None:
        if type(message) is msg.Evict:
            if self.actors[actor].state.phase not in DOWN:
                self._told_to_go.setdefault(actor, self.now)
                self.evicted_of[actor] = self.evicted_of.get(actor, 0) + 1
        elif type(message) is msg.CancelEvict:
            self._told_to_go.pop(actor, None)
        self._box.append((actor, message, cause))

    def on_bug(self, actor: Actor[Any], error: Exception, cause: int) -> None:
        raise error

    def deliver(self) -> None:
        box, actors = self._box, self.actors
        while box:
            name, message, cause = box.popleft()
            actors[name].turn(message, cause)

    def _next(self) -> None:
        self.now, _, _, action = heapq.heappop(self._agenda)
        action()
        self.deliver()

    def warm_up(self) -> None:
        """Each model of the trace that is not a one-off has been asked for once, the least popular first."""
        ask = len(self.waits)
        for index in self.trace.warm:
            ask += 1
            self.warming.add(ask)
            self.mail(self.names[index], msg.Acquire(ask))
            self.deliver()
            while ask in self.warming:
                self._next()
            self.mail(self.names[index], msg.Release(ask))
            self.deliver()
        until = self.now + QUIET_S
        while self._agenda and self._agenda[0][0] <= until:
            self._next()
        self.base = self.now = until
        self.swaps = 0
        self.evicted_of.clear()
        self.drain_max_s = self.down_max_s = self.up_max_s = 0.0

    def run(self) -> None:
        """The whole trace, until the last request has ended."""
        agenda, base, sizes = self._agenda, self.base, self.trace.sizes
        self.end = base + self.trace.duration_s
        for ask, (at, model, context, generated) in enumerate(self.trace.arrivals):
            at += base
            while agenda and agenda[0][0] <= at:
                self._next()
            self.now = at
            self.arrived[ask], self.models[ask] = at, model
            self.serve_s[ask] = sizes[model].serve_s(context, generated)
            self.edge.arrive(ask)
            self.deliver()
        while self.open and agenda:
            self._next()

    # --- requests -----------------------------------------------------------------------------------------------------

    def acquire(self, ask: int) -> None:
        self.open += 1
        self.mail(self.names[self.models[ask]], msg.Acquire(ask))

    def awake(self, ask: int) -> bool:
        """Its model would admit it at once."""
        return self.actors[self.names[self.models[ask]]].state.phase is msg.Phase.AWAKE

    def admitted(self, actor: str, effect: fx.Admit) -> None:
        ask = effect.ask
        if ask in self.warming:
            self.warming.discard(ask)
            return
        device = self.engines[actor].devices[0]
        self.on[ask] = device
        gpu = self.gpus[device]
        if gpu.free:
            gpu.free -= 1
            self._serve(ask)
        else:
            gpu.queue.append(ask)
        self.edge.settled(ask)

    def _serve(self, ask: int) -> None:
        self.waits[ask] = self.now - self.arrived[ask]
        self.after(self.serve_s[ask], lambda: self.finish(ask))

    def finish(self, ask: int) -> None:
        self.open -= 1
        model = self.models[ask]
        if self.now <= self.end:
            self.finished_of[model] += 1
        gpu = self.gpus[self.on[ask]]
        if gpu.queue:
            self._serve(gpu.queue.popleft())
        else:
            gpu.free += 1
        self.mail(self.names[model], msg.Release(ask))

    def refused(self, ask: int) -> None:
        if ask in self.warming:
            raise AssertionError(f"{self.trace.name}: a model cannot be started")
        self.open -= 1
        self.refusals += 1
        self.refused_of[self.models[ask]] += 1
        self.edge.settled(ask)

    def replied(self, command: int, reply: fx.Reply) -> None:
        pass

    # --- engines ------------------------------------------------------------------------------------------------------

    def measure_s(self) -> float:
        return figures.MEASURE_S

    def measure(self, epoch: int) -> None:
        used: dict[str, list[tuple[str, int]]] = {device: [] for device in self.gpus}
        for name, engine in self.engines.items():
            if engine.memory:
                for device in engine.devices:
                    used[device].append((name, engine.memory))
        found = tuple(
            msg.DeviceMeasured(device, self.device_bytes - sum(size for _, size in by), 0, tuple(by))
            for device, by in used.items()
        )
        self.mail(BROKER, msg.Measured(epoch, found))

    def engine_effect(self, name: str, effect: fx.Effect) -> None:
        engine = self.engines[name]
        size = engine.size
        match effect:
            case fx.Launch(run, lease_bytes, devices):
                engine.run, engine.devices, engine.pinned = run, devices, False
                engine.memory = min(size.footprint, lease_bytes)
                self.mail(name, msg.EngineLaunched(run, 1, 33300, "", "fork", ""))
            case fx.AwaitReady(run):
                self._up(name, run, size.start_s)
            case fx.WakeEngine(run, level):
                engine.memory = size.footprint
                self._up(name, run, size.wake_s(level))
            case fx.Weigh(run):
                self.mail(name, msg.EngineWeighed(run, engine.memory))
            case fx.SleepEngine(run, level):
                took_s = size.sleep_s(level, pinned=engine.pinned)
                self._descends(name, took_s)
                self.after(took_s, lambda: self._asleep(name, run, level, took_s))
            case fx.StopEngine(run) | fx.Kill(run):
                self._descends(name, self.stop_s)
                self.after(self.stop_s, lambda: self._gone(name, run))

    def _descends(self, name: str, took_s: float) -> None:
        state: State = self.actors[name].state
        if state.phase is not msg.Phase.ASLEEP:
            self.drain_max_s = max(self.drain_max_s, self.now - self._told_to_go.pop(name, self.now))
        self.down_max_s = max(self.down_max_s, took_s)

    def _up(self, name: str, run: int, took_s: float) -> None:
        self.swaps += 1
        self.up_max_s = max(self.up_max_s, took_s)
        self.after(took_s, lambda: self.mail(name, msg.EngineReady(run, (("all", took_s),))))

    def _asleep(self, name: str, run: int, level: int, took_s: float) -> None:
        engine = self.engines[name]
        before, engine.memory = engine.memory, engine.size.residue
        engine.pinned = engine.pinned or level == 1
        self.mail(name, msg.EngineAsleep(run, level, engine.memory, before - engine.memory, took_s))

    def _gone(self, name: str, run: int) -> None:
        engine = self.engines[name]
        engine.memory, engine.pinned = 0, False
        self.mail(name, msg.EngineExited(run, 0))
