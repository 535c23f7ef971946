"""The only loop in the program: a mailbox, and turns that are plain `def`s.

`tell` runs the turn at once when nothing waits and no turn of this actor is running; else the message queues, in order, in an
asyncio queue. Two lanes: `offer` (commands from outside) is bounded; `tell` (outcomes, releases, the broker's answers) never
drops.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from vllama.actors.core.effects import Effect
from vllama.actors.core.events import Event
from vllama.actors.core.state import Folded

S = TypeVar("S", bound=Folded)
Decide = Callable[[S, Any, float], tuple[Sequence[Event], Sequence[Effect]]]
Perform = Callable[["Actor[Any]", Effect, int], None]


class Writes(Protocol):
    """What an actor asks of the journal."""

    def follow(self, actor: str, state: Folded) -> None: ...

    def append(self, actor: str, cause: tuple[str, int], event: Event, at: float) -> int: ...


class Actor(Generic[S]):
    """One state, one mailbox, one writer. `perform(actor, effect, cause)` runs an effect; it must not block."""

    def __init__(
        self,
        name: str,
        state: S,
        decide: Decide[S],
        evolve: Callable[[S, Any], None],
        journal: Writes,
        perform: Perform,
        clock: Callable[[], float],
        on_bug: Callable[["Actor[Any]", Exception, int], None],
        mailbox_max: int = 4096,
    ) -> None:
        self.name = name
        self.state = state
        self._decide = decide
        self._evolve = evolve
        self._journal = journal
        self._perform = perform
        self._clock = clock
        self._on_bug = on_bug
        self._mailbox: asyncio.Queue[tuple[Any, int]] = asyncio.Queue()
        self._mailbox_max = mailbox_max
        self._queued = 0
        self._running = False
        journal.follow(name, state)

    def offer(self, message: object) -> bool:
        """A command from outside; False when too many wait already."""
        if self._queued >= self._mailbox_max:
            return False
        self.tell(message)
        return True

    def tell(self, message: object, cause: int = 0) -> None:
        """Never dropped. `cause` is the record during whose turn the message was sent."""
        if self._running or self._queued:
            self._queued += 1
            self._mailbox.put_nowait((message, cause))
        else:
            self.turn(message, cause)

    def turn(self, message: object, cause: int = 0) -> None:
        """Decide, journal, evolve, act: one atomic step."""
        self._running = True
        try:
            now = self._clock()
            events, effects = self._decide(self.state, message, now)
            why = (type(message).__name__, cause)
            for event in events:
                cause = self._journal.append(self.name, why, event, now)  # the journal first,
                self._evolve(self.state, event)  # then the state,
            for effect in effects:  # then the world
                self._perform(self, effect, cause)
        except Exception as error:  # a bug in a core: the supervisor begins this actor anew, the others go on
            self._on_bug(self, error, cause)
        finally:
            self._running = False

    async def run(self) -> None:
        """Take what has queued, in order, for ever."""
        while True:
            message, cause = await self._mailbox.get()
            self._queued -= 1
            self.turn(message, cause)
            if self._queued:
                await asyncio.sleep(0)  # let others have their turn between ours
