"""What a decision costs with 1,000 models and 10,000 requests waiting: the broker's and the instances' turns, journal included.

The cores are the real ones, on virtual time; eight GPUs hold a few models each, and every client asks again as soon as it is
answered, so that the queue stays as long as it is. `median_us` and `p99_us` are over all messages of all actors, `replan_*`
over the broker's looks at its whole plan alone. Each of two runs: the defaults, where after a minute most have waited
`max_wait_s`; and a `max_wait_s` that nobody reaches. `cpu_*` is time of the processor: what a neighbour takes is not in it.
For comparison: the same with 60 models and 600 requests.
"""

import argparse
import gc
import heapq
import random
import statistics
import sys
import time
from collections import deque
from typing import Any

from common import ROOT, publish

sys.path.insert(0, str(ROOT))

from tests.simulation.stage import Stage
from vllama.actors.actor import Actor
from vllama.actors.core import broker, instance
from vllama.actors.core import effects as fx
from vllama.actors.core import events as ev
from vllama.actors.core import messages as msg
from vllama.actors.core.broker_events import BrokerCreated
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.instance_state import State
from vllama.actors.core.rules import RULES
from vllama.actors.core.state import BROKER
from vllama.actors.journal import Journal

GIB = 2**30
DEVICES = 8
DEVICE_BYTES = 80 * GIB
RESIDUE_BYTES = 2**28
TURNS = 100_000
NEVER_S = 1e9


class Machine(Stage):
    """Eight GPUs whose engines do as they are told, in seconds of virtual time, and clients that always wait."""

    def __init__(self, models: int, requests: int, policy: str, max_wait_s: float) -> None:
        super().__init__()
        self.rng = random.Random(0)
        self.now = 1000.0
        self.journal = Journal(lambda: self.now)
        self.spent: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}
        self.box: deque[tuple[str, object, int]] = deque()
        self.used: dict[str, dict[str, int]] = {f"gpu{n}": {} for n in range(DEVICES)}
        self.actors: dict[str, Actor[Any]] = {BROKER: self.actor(BROKER, BrokerState(), broker)}
        self.asks: dict[int, str] = {}
        self.waiting = 0
        settings = msg.BrokerPolicy(policy=policy, max_wait_s=max_wait_s, wait_timeout_s=NEVER_S)
        self.create(BROKER, BrokerCreated(settings), broker)
        for device in self.used:
            self.actors[BROKER].turn(msg.DeviceFound(device, "cuda", DEVICE_BYTES))
        names = [f"org{n % 50}/model-{n:04}" for n in range(models)]
        for n, name in enumerate(names):
            weights = self.rng.choice((2, 4, 8, 14, 28, 40)) * GIB
            where = (f"gpu{n % DEVICES}",) if n % 4 == 0 else ()
            need = msg.Need(weights + 4 * GIB + self.rng.randrange(GIB), weights, where)
            self.actors[name] = self.actor(name, State(), instance)
            policy_of = msg.Policy(on_gpu=True, queue_max=requests)
            self.create(name, ev.InstanceCreated(name, policy_of, need), instance)
        for n in range(requests):
            self.ask(names[n % models])

    def create(self, name: str, event: Any, core: Any) -> None:
        self.journal.append(name, ("Create", 0), event, self.now)
        core.evolve(self.actors[name].state, event)

    def ask(self, model: str) -> None:
        number = len(self.asks) + 1
        self.asks[number] = model
        self.waiting += 1
        self.mail(model, msg.Acquire(number))

    def run(self, turns: int, *, timed: bool) -> None:
        """So many messages; how long each took is kept."""
        clock, worked = time.perf_counter, time.thread_time
        while turns:
            if not self.box:
                self.pass_time()
                continue
            name, message, cause = self.box.popleft()
            actor = self.actors[name]
            began_cpu, began = worked(), clock()
            actor.turn(message, cause)
            took, cpu = clock() - began, worked() - began_cpu
            turns -= 1
            if timed:
                self.spent.setdefault(type(message).__name__, []).append(took * 1e6)
                self.cpu.setdefault(type(message).__name__, []).append(cpu * 1e6)

    def pass_time(self) -> None:
        at, _, _, action = heapq.heappop(self._agenda)
        self.now = max(self.now, at)
        action()

    # --- the stage's parts --------------------------------------------------------------------------------------------

    def mail(self, actor: str, message: object, cause: int = 0) -> None:
        self.box.append((actor, message, cause))

    def on_bug(self, actor: Actor[Any], error: Exception, cause: int) -> None:
        raise AssertionError(f"{actor.name} met a bug") from error

    def admitted(self, actor: str, effect: fx.Admit) -> None:
        self.waiting -= 1
        self.after(self.rng.expovariate(1.0), lambda: self.finish(effect.ask))

    def refused(self, ask: int) -> None:
        raise AssertionError(f"{self.asks[ask]} was refused")

    def replied(self, command: int, reply: fx.Reply) -> None:
        raise AssertionError(f"nobody gave command {command}")

    def finish(self, ask: int) -> None:
        model = self.asks[ask]
        self.mail(model, msg.Release(ask))
        self.after(self.rng.expovariate(1.0) * 20, lambda: self.ask(model))

    def measure_s(self) -> float:
        return 0.01

    def measure(self, epoch: int) -> None:
        found = tuple(
            msg.DeviceMeasured(device, DEVICE_BYTES - sum(used.values()), 0, tuple(used.items()))
            for device, used in self.used.items()
        )
        self.mail(BROKER, msg.Measured(epoch, found))

    def takes(self, name: str, size: int) -> None:
        for device in self.actors[name].state.devices:
            self.used[device][name] = size
            if not size:
                del self.used[device][name]

    def engine_effect(self, name: str, effect: fx.Effect) -> None:
        state = self.actors[name].state
        match effect:
            case fx.Launch(run):
                self.takes(name, state.lease_bytes)
                self.mail(name, msg.EngineLaunched(run, 1, 33300, "log", "fork", ""))
            case fx.AwaitReady(run):
                self.after(20.0, lambda: self.mail(name, msg.EngineReady(run)))
            case fx.WakeEngine(run):
                self.takes(name, state.lease_bytes)
                self.after(2.0, lambda: self.mail(name, msg.EngineReady(run)))
            case fx.Weigh(run):
                self.mail(name, msg.EngineWeighed(run, state.lease_bytes))
            case fx.SleepEngine(run, level):
                self.after(1.0, lambda: self.slept(name, run, level))
            case fx.StopEngine(run):
                self.after(1.0, lambda: self.gone(name, run))
            case _:
                raise AssertionError(f"{name}: {effect}")

    def slept(self, name: str, run: int, level: int) -> None:
        freed = self.actors[name].state.lease_bytes - RESIDUE_BYTES
        self.takes(name, RESIDUE_BYTES)
        self.mail(name, msg.EngineAsleep(run, level, RESIDUE_BYTES, freed))

    def gone(self, name: str, run: int) -> None:
        self.takes(name, 0)
        self.mail(name, msg.EngineExited(run, 0))


def measured(models: int, requests: int, policy: str, max_wait_s: float, turns: int) -> Machine:
    """The machine after so many messages, with the microseconds of each turn by its message's kind."""
    machine = Machine(models, requests, policy, max_wait_s)
    machine.run(requests + turns // 4, timed=False)
    gc.collect()
    before = machine.waiting
    machine.run(turns, timed=True)
    least = min(before, machine.waiting)
    name = f"{policy}, {models} models, {requests} requests, max_wait_s {max_wait_s:g}"
    print(f"{name}: at least {least} wait, {len(machine.actors[BROKER].state.waiting())} for memory")
    for kind, took in sorted(machine.spent.items(), key=lambda item: -sum(item[1])):
        cpu = machine.cpu[kind]
        print(
            f"  {kind:16} {len(took):>7} x  median {statistics.median(took):8.1f}  p99 {p99(took):8.1f} us; "
            f"of the processor {statistics.median(cpu):8.1f}  p99 {p99(cpu):8.1f} us"
        )
    return machine


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98] if len(values) > 1 else values[0]


def flat(kinds: dict[str, list[float]]) -> list[float]:
    return [took for values in kinds.values() for took in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=TURNS)
    turns: int = parser.parse_args().turns
    columns: dict[str, list[float]] = {}
    figures: dict[str, float] = {"models": 1000, "waiting": 10_000}
    for policy in sorted(RULES):
        for max_wait_s in (60.0, NEVER_S):
            few = measured(60, 600, policy, max_wait_s, turns // 4)
            many = measured(1000, 10_000, policy, max_wait_s, turns)
            row = {
                "median": statistics.median(flat(many.spent)),
                "p99": p99(flat(many.spent)),
                "cpu_median": statistics.median(flat(many.cpu)),
                "cpu_p99": p99(flat(many.cpu)),
                "replan_cpu_median": statistics.median(many.cpu["Replan"]),
                "replan_cpu_p99": p99(many.cpu["Replan"]),
                "few_cpu_median": statistics.median(flat(few.cpu)),
                "few_replan_cpu_median": statistics.median(few.cpu["Replan"]),
            }
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
    figures |= {f"{name}_us": round(max(values), 1) for name, values in columns.items()}
    publish("broker", columns, figures)


if __name__ == "__main__":
    main()
