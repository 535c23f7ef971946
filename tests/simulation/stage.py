"""The stage of every simulation: the real actors over virtual time, and each effect of theirs taken to whoever plays it.

`World` plays engines that misbehave and looks at laws; `bench/policy` plays engines by measured figures and looks at waits.
"""

import heapq
from collections.abc import Callable
from typing import Any

from vllama.actors.actor import Actor
from vllama.actors.core import effects as fx
from vllama.actors.core import messages as msg
from vllama.actors.core.state import BROKER
from vllama.actors.journal import Journal


class Stage:
    """Virtual time, an agenda, and actors whose turns the subclass orders."""

    now: float
    journal: Journal

    def __init__(self) -> None:
        self._agenda: list[tuple[float, float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (self.now + delay_s, self.tie(), self._count, action))

    def tie(self) -> float:
        """What orders things of the same moment, before the order in which they were asked for."""
        return 0.0

    def actor(self, name: str, state: Any, core: Any) -> Actor[Any]:
        return Actor(
            name, state, core.decide, core.evolve, self.journal, self.perform, lambda: self.now, self.on_bug
        )

    def perform(self, actor: Actor[Any], effect: fx.Effect, cause: int) -> None:
        name = actor.name
        match effect:
            case fx.Admit():
                self.admitted(name, effect)
            case fx.Refuse(ask):
                self.refused(ask)
            case fx.Reply(command):
                self.replied(command, effect)
            case fx.Abort(asks):
                for ask in asks:
                    self.after(0.01, lambda ask=ask: self.finish(ask))
            case fx.TellBroker(message) | fx.TellSelf(message):
                self.mail(BROKER, message, cause)
            case fx.TellInstance(model, message):
                self.mail(model, message, cause)
            case fx.SetTimer(timer, delay_s):
                self.after(delay_s, lambda: self.mail(name, msg.TimerDue(timer)))
            case fx.SetTick(delay_s):
                self.after(delay_s, lambda: self.mail(BROKER, msg.Tick()))
            case fx.Measure(epoch):
                self.after(self.measure_s(), lambda: self.measure(epoch))
            case _:
                self.engine_effect(name, effect)

    # --- the parts that the subclass plays ----------------------------------------------------------------------------

    def mail(self, actor: str, message: object, cause: int = 0) -> None:
        raise NotImplementedError

    def on_bug(self, actor: Actor[Any], error: Exception, cause: int) -> None:
        raise NotImplementedError

    def admitted(self, actor: str, effect: fx.Admit) -> None:
        raise NotImplementedError

    def refused(self, ask: int) -> None:
        raise NotImplementedError

    def replied(self, command: int, reply: fx.Reply) -> None:
        raise NotImplementedError

    def finish(self, ask: int) -> None:
        raise NotImplementedError

    def measure_s(self) -> float:
        raise NotImplementedError

    def measure(self, epoch: int) -> None:
        raise NotImplementedError

    def engine_effect(self, name: str, effect: fx.Effect) -> None:
        raise NotImplementedError
