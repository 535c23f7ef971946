"""The fake world's memory: what engines really take, what returns late, and what a measurement shows of it."""

import random
from collections.abc import Callable

from tests.simulation.cast import Engine, Faults, Model
from vllama.actors.actor import Actor
from vllama.actors.core import messages as msg
from vllama.actors.core.instance_state import State
from vllama.actors.core.state import BROKER


class Memory:
    """The part of the world that a device sees."""

    rng: random.Random
    now: float
    faults: Faults
    devices: dict[str, int]
    engines: dict[str, Engine]
    models: dict[str, Model]
    actors: dict[str, Actor[State]]
    growth: list[tuple[float, int]]
    lingering: dict[str, list[tuple[float, str, int]]]
    mail: Callable[..., None]

    def shared(self) -> int:
        """What vllama's own helpers hold of each device now; a zygote grows while it loads, and when another one starts."""
        return sum(size for at, size in self.growth if at <= self.now)

    def _linger(self, engine: Engine, size: int, owner: str) -> None:
        """Memory that returns late, or (for a minute) not at all."""
        if self.rng.random() < self.faults.late_memory:
            seconds = 60.0 if self.rng.random() < self.faults.lost_memory else self.rng.random() * 5
            for device in engine.devices:
                self.lingering[device].append((self.now + seconds, owner, size))

    def used_by(self, device: str) -> dict[str, int]:
        used: dict[str, int] = {}
        for engine in self.engines.values():
            if device in engine.devices and engine.memory:
                used[engine.model] = used.get(engine.model, 0) + engine.memory
        for until, model, size in self.lingering[device]:
            if until > self.now:
                used[model] = used.get(model, 0) + size
        return used

    def measure(self, epoch: int) -> None:
        if self.rng.random() < self.faults.host_down * 0.3:
            self.mail(BROKER, msg.Measured(epoch, ()))
            return
        found = []
        for device, total in self.devices.items():
            used = self.used_by(device)
            by_model = tuple((model, size) for model, size in sorted(used.items()) if model)
            shared = self.shared()
            free = max(total - shared - sum(used.values()), 0)
            found.append(msg.DeviceMeasured(device, free, shared, by_model))
        self.mail(BROKER, msg.Measured(epoch, tuple(found)))
