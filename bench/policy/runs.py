"""One run: a trace, a policy by its name, and the row of figures that comes of it."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bench.policy import baselines, figures
from bench.policy.traces import Trace
from bench.policy.world import Edge, World
from vllama.actors.core import messages as msg
from vllama.actors.core.cost import QUANTUM
from vllama.actors.core.policy import Rule
from vllama.actors.core.rules import RULES


@dataclass(frozen=True)
class Setting:
    """How a policy is run: the product's own settings, with what its source sets otherwise."""

    rule: Callable[[baselines.Future], Rule] | None = None  # None: one of the product's
    broker: tuple[tuple[str, Any], ...] = ()
    instance: tuple[tuple[str, Any], ...] = ()
    edge: Callable[[World], Edge] = Edge


POLICIES: dict[str, Setting] = {
    "lru": Setting(),
    "cost": Setting(instance=(("any_level", True),)),
    "lru-level-1": Setting(lambda _: baselines.Lru(), instance=(("sleep_level", 1),)),
    "ollama": Setting(
        lambda _: baselines.Ollama(),
        (("busy_grace_s", 0.0),),
        (("unload_timeout", baselines.OLLAMA_KEEP_ALIVE_S),),
        baselines.OllamaEdge,
    ),
    "llama-swap": Setting(lambda _: baselines.LlamaSwap()),
    "ttl": Setting(
        lambda _: baselines.Lru(), instance=(("unload_timeout", baselines.OPENWHISK_KEEP_ALIVE_S),)
    ),
    "clairvoyant": Setting(baselines.Clairvoyant),
    "foresight": Setting(baselines.Foresight, instance=(("any_level", True),)),
}


MAX_WAIT_S = msg.BrokerPolicy().max_wait_s
REFUSED_S = msg.BrokerPolicy().wait_timeout_s


def simulate(trace: Trace, name: str) -> tuple[World, float]:
    """The world at its end, and the seconds that the run took."""
    setting, future = POLICIES[name], baselines.Future(trace)
    if setting.rule is not None:
        RULES[name] = setting.rule(future)
    ram = figures.HOST_RAM_BYTES * trace.devices // 2
    broker = replace(msg.BrokerPolicy(policy=name, sleep_ram_max_bytes=ram), **dict(setting.broker))
    policy = replace(msg.Policy(on_gpu=True, queue_max=trace.queue_max), **dict(setting.instance))
    began = time.perf_counter()
    world = World(trace, broker, policy, setting.edge)
    world.warm_up()
    future.base = world.base
    world.run()
    return world, time.perf_counter() - began


def row(trace: Trace, name: str) -> dict[str, Any]:
    """The figures of one run. A request that is refused counts as one that has waited `wait_timeout_s`: else it would pay to
    refuse. `throughput`: requests that ended before the trace did, a second."""
    world, took_s = simulate(trace, name)
    waits = sorted(wait if wait >= 0 else REFUSED_S for wait in world.waits)
    asked = [0] * len(trace.sizes)
    for _, model, _, _ in trace.arrivals:
        asked[model] += 1
    parts = [done / of for done, of in zip(world.finished_of, asked, strict=True) if of]
    return {
        "trace": trace.name,
        "models": len(trace.sizes),
        "devices": trace.devices,
        "policy": name,
        "swaps": world.swaps,
        "wait_mean_s": round(statistics.fmean(waits), 4),
        "wait_p99_s": round(waits[min(int(len(waits) * 0.99), len(waits) - 1)], 3),
        "throughput": round(sum(world.finished_of) / trace.duration_s, 4),
        "load": round(trace.load, 4),
        "requests": len(trace.arrivals),
        "refused": world.refusals,
        "unserved": world.open,
        "drain_max_s": round(world.drain_max_s, 2),
        "switch_max_s": round(world.down_max_s + world.up_max_s, 2),
        "hot_evicted": sum(world.evicted_of.get(world.names[model], 0) for model in trace.hot),
        "share_least": round(min(parts) / max(parts), 3) if max(parts) else 0.0,
        **(_two_hot(world) if trace.name == "two-hot" else {}),
        "served_by_model": list(world.finished_of) if len(trace.sizes) <= 10 else [],
        "took_s": round(took_s, 2),
    }


def _two_hot(world: World) -> dict[str, float]:
    """What the bound on two models that take turns is made of."""
    size = world.trace.sizes[0]
    mean_s = statistics.fmean(world.serve_s)
    switch_s = size.sleep_s(1, pinned=True) + size.wake_s(1)
    return {
        "capacity": round(figures.CONCURRENT_MAX / mean_s, 4),
        "switch_s": round(switch_s, 2),
        "quantum_s": round(QUANTUM * switch_s, 2),
    }
