"""Who is in the fake world: engines, asks, models, and how a seed's world misbehaves."""

import random
from dataclasses import dataclass, field

from vllama.actors.core import messages as msg
from vllama.actors.core.messages import Phase

MB = 2**20
REST = (Phase.STOPPED, Phase.FAILED, Phase.ASLEEP, Phase.AWAKE)
IN_TRANSITION = ("starting", "waking", "sleeping", "stopping")


class Broken(AssertionError):
    """A law does not hold in this history."""


@dataclass
class Engine:
    """One process tree of the fake world; `memory` is what it really takes."""

    model: str
    run: int
    devices: tuple[str, ...]
    state: str = "launching"  # launching, starting, awake, sleeping, asleep, waking, stopping, dead
    memory: int = 0
    takes: int = 0  # while it is awake
    launched_with: int = 0
    copy: int = 0  # of the host's RAM: its weights, once it has slept at level 1
    cycles: int = 0
    can_sleep: bool = True


@dataclass
class Ask:
    """One request: admitted to `engine`, answered once, or left."""

    model: str
    answered: bool = False
    left: bool = False
    engine: Engine | None = None


@dataclass
class Faults:
    """How this seed's world misbehaves: probabilities, varied by seed."""

    crash_start: float = 0.0
    hang_start: float = 0.0
    crash_wake: float = 0.0
    fail_wake: float = 0.0
    fail_sleep: float = 0.0
    crash_sleep: float = 0.0
    crash_awake: float = 0.0
    crash_asleep: float = 0.0
    late_memory: float = 0.0
    lost_memory: float = 0.0
    host_down: float = 0.0
    lying_footprint: float = 0.0
    leave: float = 0.0
    command: float = 0.0

    @classmethod
    def draw(cls, rng: random.Random) -> "Faults":
        """Swarm: each kind of fault is off in half of the histories."""
        return cls(**{name: rng.choice((0.0, 0.0, 0.1, 0.35)) for name in cls.__dataclass_fields__})


@dataclass
class Model:
    name: str
    weights: int
    need: int
    footprint: int
    residue: int
    policy: msg.Policy = field(default_factory=msg.Policy)
