"""A look at engines that is no use of them: who scrapes their figures holds no ticket, wakes nobody and hinders no drain.

Law 2 (a request reaches an engine only while it is awake) holds without a ticket because of the order of a turn: the journal
is written first, and who is told of a record (`Journal.attach`) is told before any effect of that turn begins. So the moment
that an instance is no longer awake, its glance is over and `on_over` has cut the connection, before anything is sent to put
the engine to sleep or to stop it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vllama.actors.core.events import EngineGone, InstanceReset, PhaseChanged
from vllama.actors.core.messages import Phase
from vllama.actors.record import Record

if TYPE_CHECKING:
    from vllama.actors.system import System

_ENDS = (PhaseChanged, EngineGone, InstanceReset)


class Glance:
    """One awake engine, for as long as it stays that. `over` never becomes false again."""

    def __init__(self, model: str, host: str, port: int) -> None:
        self.model = model
        self.host = host
        self.port = port
        self.over = False
        self.on_over: Callable[[], None] | None = None

    def end(self) -> None:
        """It is awake no more."""
        if not self.over:
            self.over = True
            if self.on_over is not None:
                self.on_over()


class _Lookout:
    """Told of every record while somebody looks."""

    def __init__(self, glances: tuple[Glance, ...]) -> None:
        self._glances = {glance.model: glance for glance in glances}

    def push(self, record: Record) -> None:
        if isinstance(record.event, _ENDS) and (glance := self._glances.get(record.actor)) is not None:
            glance.end()


@contextmanager
def glances(system: "System") -> Iterator[tuple[Glance, ...]]:
    """Every engine that is awake now. A server that stops has none to show."""
    awake = () if system.stopping else system.journal.states.instances()
    found = tuple(
        Glance(state.model, "127.0.0.1", state.port)
        for state in awake
        if state.phase is Phase.AWAKE and state.port
    )
    lookout = _Lookout(found)
    system.journal.attach(lookout)
    try:
        yield found
    finally:
        system.journal.forget(lookout)
        for glance in found:
            glance.end()
