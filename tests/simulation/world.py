"""A fake world on virtual time under the real cores: engines that crash, hang, answer late and lie; clients that leave.

One seed is one history. Mail of one sender to one actor keeps its order, but time may pass while mail waits, and outcomes of
different effects have no order. The laws are assertions: they raise Broken with the seed in the message.
"""

import dataclasses
import heapq
import random
from collections import deque
from typing import Any

from tests.simulation.cast import MB, Ask, Broken, Engine, Faults, Model
from tests.simulation.laws import Laws
from tests.simulation.memory import Memory
from tests.simulation.stage import Stage
from tests.simulation.victims import Watched
from vllama.actors.actor import Actor
from vllama.actors.core import broker, instance
from vllama.actors.core import effects as fx
from vllama.actors.core import events as ev
from vllama.actors.core import messages as msg
from vllama.actors.core.broker_events import BrokerCreated
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.instance_state import State
from vllama.actors.core.keep import KeepAlive
from vllama.actors.core.state import BROKER
from vllama.actors.journal import Journal


class World(Memory, Laws, Stage):
    """All actors, all engines, all clients of one history."""

    def __init__(self, seed: int, *, configuring: bool = False, policy: str = "lru") -> None:
        """`configuring`: entries of models.yaml change on the way. `policy`: the broker's."""
        super().__init__()
        self.seed = seed
        self.configuring = configuring
        self.rng = rng = random.Random(seed)
        self.priorities = random.Random(f"priorities {seed}")
        self.faults = Faults.draw(rng)
        self.now = 1000.0
        self.turns = 0
        self.journal = Journal(lambda: self.now, lifecycle_max=rng.choice((200, 50_000)), requests_max=5000)
        self._mail: dict[str, deque[tuple[Any, int]]] = {}
        self._timers: dict[str, int] = {}
        self.kind = rng.choice(("cpu", "cuda"))
        self.devices = {f"dev{i}": rng.choice((1000, 1500)) * MB for i in range(rng.choice((1, 1, 1, 2)))}
        self.lingering: dict[str, list[tuple[float, str, int]]] = {d: [] for d in self.devices}
        self.growth: list[tuple[float, int]] = []  # of what vllama's own helpers hold: since when, bytes
        self.models: dict[str, Model] = {}
        self.engines: dict[str, Engine] = {}
        self.asks: dict[int, Ask] = {}
        self.commands: dict[int, list[fx.Reply]] = {}
        self.next_id = 0
        self.closing = False
        self.keeps = random.Random(
            f"keep {seed}"
        )  # in a third of the histories callers say how long a model stays awake
        self.keep = self.keeps.choice((0.0, 0.0, 0.3))
        self.broker: Actor[BrokerState] = self._actor(BROKER, BrokerState(), Watched(self))
        growing = random.Random(f"growth {seed}")  # in a third of the histories on CPU
        if self.kind == "cpu" and growing.random() < 0.33:
            sizes = growing.choice(((50,), (50, 150), (100, 200, 300)))
            self.growth = [(self.now + growing.random() * 60, size * MB) for size in sizes]
        self.ram = random.Random(f"ram {seed}").choice((0, 600, 1200)) * MB  # for level-1 sleepers
        rules = msg.BrokerPolicy(
            busy_grace_s=rng.choice((0.5, 10.0)),
            wait_timeout_s=120.0,
            sleep_ram_max_bytes=self.ram,
            policy=policy,
        )
        self.any_level = policy != "lru"
        created = BrokerCreated(rules)
        self.journal.append(BROKER, ("Create", 0), created, self.now)
        broker.evolve(self.broker.state, created)
        self.actors: dict[str, Actor[State]] = {}
        for device, total in self.devices.items():
            self.broker.turn(msg.DeviceFound(device, self.kind, total))
        for index in range(rng.choice((2, 3, 4))):
            self._add_model(f"m{index}")

    # --- set-up -------------------------------------------------------------------------------------------------------

    def _actor(self, name: str, state: Any, core: Any) -> Actor[Any]:
        self._mail[name] = deque()
        return self.actor(name, state, core)

    def on_bug(self, actor: Actor[Any], error: Exception, _: int) -> None:
        raise Broken(f"seed {self.seed}: {actor.name} met a bug in {actor.state}: {error!r}") from error

    def _add_model(self, name: str) -> None:
        rng = self.rng
        weights = rng.choice((100, 300, 500, 700, 900)) * MB
        footprint = weights + rng.choice((50, 100)) * MB
        need = footprint + rng.choice((0, 0, 60)) * MB
        policy = msg.Policy(
            queue_max=rng.choice((3, 100)),
            sleep_level=rng.choice((1, 2, 2, 3)),
            unload_timeout=rng.choice((20.0, 1800.0)),
            unload_mode=rng.choice((1, 2, 3)),
            stop_timeout_s=rng.choice((60.0, 6 * 3600.0)),
            drain_timeout_s=rng.choice((None, None, 5.0)),
            pinned=rng.random() < 0.1,
            priority=self.priorities.choice((0, 0, 0, 1, -2)),
            on_gpu=self.kind == "cuda",
            any_level=self.any_level and self.kind == "cuda",
        )
        devices: tuple[str, ...] = ()
        if len(self.devices) > 1:
            devices = rng.choice(((), tuple(self.devices)[:1], tuple(self.devices)))
        self.models[name] = Model(name, weights, need, footprint, rng.choice((10, 50)) * MB, policy)
        actor: Actor[State] = self._actor(name, State(), instance)
        copy = weights if self.kind == "cuda" else 0
        created = ev.InstanceCreated(name, policy, msg.Need(need, weights, devices, copy))
        self.journal.append(name, ("Create", 0), created, self.now)
        instance.evolve(actor.state, created)
        self.actors[name] = actor

    # --- time and mail ------------------------------------------------------------------------------------------------

    def tie(self) -> float:
        return self.rng.random()

    def mail(self, actor: str, message: object, cause: int = 0) -> None:
        self._mail[actor].append((message, cause))

    def step(self) -> bool:
        """Deliver one message, or let time pass to the next thing on the agenda. False when nothing is left."""
        full = [name for name, box in self._mail.items() if box]
        if full and not (self._agenda and self.rng.random() < 0.15):
            name = self.rng.choice(full)
            message, cause = self._mail[name].popleft()
            actor: Actor[Any] = self.broker if name == BROKER else self.actors[name]
            actor.turn(message, cause)
            self.turns += 1
            self._check_books(name)
            self._check_urgency(name)
            return True
        if not self._agenda:
            return False
        at, _, _, action = heapq.heappop(self._agenda)
        self.now = max(self.now, at)
        action()
        return True

    def run(self, asks: int = 30, until_s: float = 60.0) -> None:
        """One whole history: traffic, then quiet, then the laws of rest."""
        rng = self.rng
        for _ in range(asks):
            self.after(rng.random() * until_s, self.client)
        for _ in range(8):
            if rng.random() < self.faults.command:
                self.after(rng.random() * until_s, self.operator)
        if rng.random() < 0.2:
            self.after(until_s * rng.random() + 5.0, self.shut_down)
        for _ in range(6 if self.configuring else 0):
            self.after(rng.random() * until_s, self.configure)
        limit = 40_000
        while self.step():
            limit -= 1
            if limit == 0:
                raise Broken(f"seed {self.seed}: no rest after 40,000 steps: {self._describe()}")
            if not any(self._mail.values()) and self._agenda and self._agenda[0][0] > self.now + 15_000:
                break
        self.check_rest()

    # --- clients ------------------------------------------------------------------------------------------------------

    def client(self) -> None:
        if self.closing:
            return
        model = self.rng.choice(tuple(self.models))
        for _ in range(self.rng.choice((1, 1, 1, 4))):
            self.next_id += 1
            ask = self.next_id
            self.asks[ask] = Ask(model)
            self.mail(model, msg.Acquire(ask, priority=self.priorities.choice((None, None, None, -1, 0, 3))))
            if self.rng.random() < self.faults.leave:
                patience = self.rng.choice((0.3, 10.0))
                self.after(self.rng.expovariate(patience), lambda ask=ask: self.leave(ask))
                if patience > 1 and self.rng.random() < 0.5:  # hangs up and asks again: grants cross
                    self.after(self.rng.random() * 0.2, self.client)

    def say_keep(self, model: str) -> None:
        """A request of this model says how long it stays awake, and sometimes one is asked to go that is not there."""
        if self.keeps.random() < self.keep:
            self.mail(model, KeepAlive(self.keeps.choice((-1.0, 0.0, 0.0, 0.5, 30.0, 4000.0))))
        if self.keeps.random() < self.keep / 3:
            self.mail(self.keeps.choice(tuple(self.models)), KeepAlive(0.0))

    def leave(self, ask: int) -> None:
        """The caller hangs up: while it waits or while it is served."""
        record = self.asks[ask]
        if not record.left and (not record.answered or record.engine is not None):
            self.finish(ask)

    def finish(self, ask: int) -> None:
        record = self.asks[ask]
        if not record.left:
            record.left = True
            self.mail(record.model, msg.Release(ask))

    def configure(self) -> None:
        """An entry has changed; sometimes in nothing that matters."""
        rng = self.rng
        model = self.models[rng.choice(tuple(self.models))]
        state = self.actors[model.name].state
        changes = {"pinned": rng.random() < 0.3, "unload_timeout": rng.choice((20.0, 1800.0))}
        priority = self.priorities.choice((state.policy.priority, 0, 2))
        policy = dataclasses.replace(state.policy, **changes, priority=priority)
        need = dataclasses.replace(state.need, bytes=model.footprint + rng.choice((0, 60)) * MB)
        settings = (("dtype", rng.choice(("a", "b"))),)
        self.mail(model.name, msg.Configure(policy, need, settings))

    def operator(self) -> None:
        rng = self.rng
        if self.closing:
            return
        model = rng.choice(tuple(self.models))
        self.next_id += 1
        number = self.next_id
        self.commands[number] = []
        command = rng.choice(
            (
                msg.Start(number),
                msg.Stop(number),
                msg.Sleep(number, 1),
                msg.Sleep(number, 2, force=rng.random() < 0.3),
            )
        )
        self.mail(model, command)

    def admitted(self, actor: str, effect: fx.Admit) -> None:
        ask = self.asks[effect.ask]
        engine = self.engines.get(actor)
        if ask.answered:
            self.broken(f"ask {effect.ask} of {actor} is answered twice")
        ask.answered = True
        if ask.left:
            return  # its Release is in the mail
        if engine is None or engine.run != effect.run or engine.state not in ("awake", "dead"):
            self.broken(f"ask {effect.ask} reaches {actor} while its engine is {engine}")
        ask.engine = engine
        self.say_keep(actor)
        rate = self.rng.choice((1.0, 1.0, 1.0, 0.02))  # some streams are long
        self.after(self.rng.expovariate(rate), lambda: self.finish(effect.ask))

    def shut_down(self) -> None:
        """The server ends: the edge lets nothing more in, every instance is told."""
        self.closing = True
        for name in self.actors:
            self.mail(name, msg.Shutdown())

    def in_flight(self, engine: Engine) -> int:
        return sum(1 for ask in self.asks.values() if ask.engine is engine and not ask.left)

    # --- effects ------------------------------------------------------------------------------------------------------

    def refused(self, ask: int) -> None:
        if self.asks[ask].answered:
            self.broken(f"ask {ask} is answered twice")
        self.asks[ask].answered = True

    def replied(self, command: int, reply: fx.Reply) -> None:
        self.commands[command].append(reply)

    def measure_s(self) -> float:
        return self.rng.random() * 0.05

    def engine_effect(self, name: str, effect: fx.Effect) -> None:
        delay = self.rng.expovariate(1 / 2.0)
        match effect:
            case fx.Launch(run, lease_bytes, devices, sleep_mode):
                self._begin(name, run, lease_bytes, devices)
                self.engines[name].can_sleep = sleep_mode
            case fx.AwaitReady(run):
                self.after(delay, lambda: self._started(self.engines[name], run))
            case fx.WakeEngine(run):
                engine = self._transition(name, run, ("asleep",), "waking")
                if engine is not None:
                    engine.memory = engine.takes
                    self._check_wake(engine)
                    self._check_memory(engine)
                    self.after(delay, lambda: self._woken(engine))
            case fx.Weigh():
                pass  # told a while after _awake()
            case fx.SleepEngine(run, level):
                engine = self._transition(name, run, ("awake",), "sleeping")
                if engine is not None:
                    self._check_sleep(engine, self.in_flight(engine))
                    self.after(delay, lambda: self._slept(engine, level))
            case fx.StopEngine(run):
                engine = self.engines[name]
                if engine.state != "dead":
                    engine.state = "stopping"
                    if not self.closing:
                        self._alone(engine)
                    self.after(delay, lambda: self.exit(engine, 0))
            case fx.Kill(run):
                engine = self.engines[name]
                if engine.run != run:
                    self.broken(f"{name}: kill of run {run}, the engine is {engine}")
                self.after(self.rng.random(), lambda: self.exit(engine, -9))

    def _begin(self, name: str, run: int, lease_bytes: int, devices: tuple[str, ...]) -> None:
        old = self.engines.get(name)
        if old is not None and old.state != "dead":
            self.broken(f"{name}: a second engine beside {old}")
        engine = self.engines[name] = Engine(name, run, devices, "starting")
        self._alone(engine)
        engine.memory = engine.takes = min(self.models[name].footprint, lease_bytes)
        engine.launched_with = lease_bytes
        self._check_memory(engine)
        launched = msg.EngineLaunched(run, 1, 33300, "log", "fork", "")
        self.after(self.rng.random() * 0.1, lambda: engine.state != "dead" and self.mail(name, launched))
        if self.rng.random() < self.faults.crash_start:
            why = self.rng.choice(("", "", "port", "profiling", "oom", "oom"))
            self.after(self.rng.expovariate(1.0), lambda: self.exit(engine, 1, why))

    def _started(self, engine: Engine, run: int) -> None:
        if engine.run != run or engine.state != "starting":
            self.late(engine.model, msg.EngineUnready(run, "no answer"))
            return
        if self.rng.random() < self.faults.hang_start:
            self.mail(engine.model, msg.EngineUnready(run, "start timeout"))
            return
        self._awake(engine)

    def _woken(self, engine: Engine) -> None:
        if engine.state != "waking":
            self.late(engine.model, msg.EngineUnready(engine.run, "no answer"))
            return
        if self.rng.random() < self.faults.crash_wake:
            self.exit(engine, 1)
        elif self.rng.random() < self.faults.fail_wake:
            self.mail(engine.model, msg.EngineUnready(engine.run, "probe mismatch"))
        else:
            self._awake(engine)

    def _awake(self, engine: Engine) -> None:
        engine.state = "awake"
        measured = engine.memory
        if self.rng.random() < self.faults.lying_footprint:
            measured = self.rng.choice((0, measured // 2, measured * 2))
        self.mail(engine.model, msg.EngineReady(engine.run))
        self.after(
            self.rng.random(), lambda: self.mail(engine.model, msg.EngineWeighed(engine.run, measured))
        )
        if self.rng.random() < self.faults.crash_awake:
            self.after(self.rng.expovariate(0.3), lambda: self.exit(engine, -9))

    def _slept(self, engine: Engine, level: int) -> None:
        if engine.state != "sleeping":
            self.late(
                engine.model,
                self.rng.choice(
                    (msg.SleepFailed(engine.run, "no answer"), msg.EngineAsleep(engine.run, level, MB, MB))
                ),
            )
            return
        if self.rng.random() < self.faults.crash_sleep:
            self.exit(engine, 1)
        elif self.rng.random() < self.faults.fail_sleep:
            self.mail(engine.model, msg.SleepFailed(engine.run, "still awake after /sleep"))
        else:
            before, engine.memory = engine.memory, min(self.models[engine.model].residue, engine.memory)
            engine.state, engine.cycles = "asleep", engine.cycles + 1
            if level == 1 and self.kind == "cuda":
                engine.copy = self.models[engine.model].weights
                self._check_ram()
            self._linger(engine, before - engine.memory, engine.model)
            asleep = msg.EngineAsleep(engine.run, level, engine.memory, before - engine.memory)
            self.mail(engine.model, asleep)
            if self.rng.random() < self.faults.crash_asleep:
                self.after(self.rng.expovariate(0.1), lambda: self.exit(engine, -9))

    def late(self, model: str, outcome: object) -> None:
        """An effect on an engine that has died meanwhile has its outcome too, whenever."""
        self.after(self.rng.expovariate(0.1), lambda: self.mail(model, outcome))

    def exit(self, engine: Engine, code: int, why: str = "") -> None:
        """The whole tree is gone; told once."""
        if engine.state == "dead":
            return
        engine.state = "dead"
        if self.kind == "cuda":
            self._linger(engine, engine.memory, "")  # no process shows it any more
        engine.memory = engine.copy = 0
        for device in (
            engine.devices
        ):  # what it had not yet given back is nobody's now; on CPU it dies with the process
            late = [(t, "" if m == engine.model else m, size) for t, m, size in self.lingering[device]]
            self.lingering[device] = [entry for entry in late if entry[1] or self.kind == "cuda"]
        for number, ask in self.asks.items():
            if ask.engine is engine and not ask.left:
                self.after(self.rng.random() * 0.05, lambda number=number: self.finish(number))
        if self.rng.random() < 0.2:  # a request meets the dead engine before its exit is told
            self.mail(engine.model, msg.EngineUnreachable(engine.run))
        self.mail(engine.model, msg.EngineExited(engine.run, code, why, "the last lines"))
