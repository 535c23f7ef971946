"""Stories: `play(state) >> message << effects` drives one pure core, message by message, and reads like what happens.

`>>` sends a message and runs the turn; `<<` says which effects it must have had: None for none, one, or a list, in order.
Effects are compared by value. A story that ends with effects that nobody named fails.
"""

from typing import Any

from vllama.actors.core import broker, instance
from vllama.actors.core import effects as fx
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.instance_state import State


class Story:
    """One core, one clock, and the effects that are still to be named."""

    def __init__(self, state: Any, core: Any, *, drain_self: bool) -> None:
        self.state = state
        self.now = 1000.0
        self._core = core
        self._drain_self = drain_self
        self._todo: list[Any] | None = None

    def __rshift__(self, message: object) -> "Story":
        assert not self._todo, f"nobody named {self._todo}"
        self._todo = self._turn(message)
        return self

    def __lshift__(self, expected: object) -> "Story":
        wanted = [] if expected is None else expected if isinstance(expected, list) else [expected]
        assert self._todo == wanted, f"\nhad    {self._todo}\nwanted {wanted}"
        self._todo = []
        return self

    def later(self, seconds: float) -> "Story":
        self.now += seconds
        return self

    def skip(self) -> "Story":
        """Whatever it did: not this story's point."""
        self._todo = []
        return self

    def _turn(self, message: object) -> list[Any]:
        events, effects = self._core.decide(self.state, message, self.now)
        for event in events:
            self._core.evolve(self.state, event)
        todo: list[Any] = []
        for effect in effects:
            if self._drain_self and isinstance(effect, fx.TellSelf):
                todo += self._turn(effect.message)
            else:
                todo.append(effect)
        return todo


def play(state: State | None = None) -> Story:
    """A story of one instance."""
    return Story(state or State(model="m"), instance, drain_self=False)


def books(state: BrokerState | None = None) -> Story:
    """A story of the broker; what it tells itself is done at once."""
    return Story(state or BrokerState(), broker, drain_self=True)


def to_broker(*messages: Any) -> list[fx.TellBroker]:
    return [fx.TellBroker(message) for message in messages]


def to(model: str, *messages: Any) -> list[fx.TellInstance]:
    return [fx.TellInstance(model, message) for message in messages]
