"""What bench/replay.py measures of this machine, and the simulator of bench/policy run by it: the prediction."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.policy.traces import Arrival, Trace
from bench.policy.world import World
from vllama.actors.core import messages as msg


@dataclass
class Served:
    """One model on this machine: what it takes (bytes), and what everything takes that is done with it (seconds)."""

    name: str
    weights: int
    footprint: int = 0  # awake
    residue: int = 0  # asleep, at level 2
    ups: dict[int, list[float]] = field(default_factory=dict)  # from where: 3 is a start, 1 and 2 are wakes
    downs: dict[int, list[float]] = field(default_factory=dict)  # to where
    request_s: float = 0.0
    context_s: float = 0.0  # a token
    generated_s: float = 0.0  # a token

    # What the simulator asks of a size (bench/policy/figures.py).

    @property
    def start_s(self) -> float:
        return statistics.median(self.ups[3])

    def wake_s(self, level: int) -> float:
        return statistics.median(self.ups[level])

    def sleep_s(self, level: int, *, pinned: bool) -> float:
        return statistics.median(self.downs[level])

    def serve_s(self, context: int, generated: int) -> float:
        return self.request_s + context * self.context_s + generated * self.generated_s

    def learn(self, records: Sequence[Mapping[str, Any]]) -> None:
        """From the journal: how long each start, wake and way down took, and what they left."""
        since, phase = 0.0, ""
        level, before = 3, 3
        for record in records:
            if record.get("actor") != self.name:
                continue
            match record["kind"]:
                case "PhaseChanged":
                    to, at = record["to"], record["at"]
                    if to == "awake" and phase in ("starting", "waking"):
                        self.ups.setdefault(3 if phase == "starting" else before, []).append(at - since)
                    if to == "asleep" and phase == "falling_asleep":
                        self.downs.setdefault(level, []).append(at - since)
                    if to == "stopped" and phase == "stopping":
                        self.downs.setdefault(3, []).append(at - since)
                    before = level if to == "waking" else before
                    phase, since = to, at
                case "EngineSlept":
                    level = record["level"]
                    if level == 2:
                        self.residue = max(self.residue, record["residue_bytes"])
                case "EngineMeasured":
                    self.footprint = max(self.footprint, record["footprint_bytes"])


class Cpu(World):
    """One device whose sleeps and wakes overlap, as engines on a CPU do; measuring it takes a moment."""

    kind = "cpu"
    measured_s = 0.05

    def measure_s(self) -> float:
        return self.measured_s


def predicted(
    models: Sequence[Served],
    arrivals: Sequence[Arrival],
    duration_s: float,
    policy: msg.BrokerPolicy,
    device_bytes: int,
    warm: Sequence[int],
) -> tuple[int, list[float]]:
    """Swaps and waits as the simulator has them."""
    stop_s = statistics.median([took for model in models for took in model.downs.get(3, ())] or [1.0])
    kind = type("Machine", (Cpu,), {"device_bytes": device_bytes, "stop_s": stop_s})
    trace = Trace("replay", list(models), 1, duration_s, list(arrivals), list(warm))  # type: ignore[arg-type]
    world: World = kind(trace, policy, msg.Policy())
    world.warm_up()
    world.run()
    return world.swaps, list(world.waits)
