"""Who has asked for an engine, and who holds one: the asks that wait for an answer and the tickets that are out."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from vllama.actors.actor import Actor
from vllama.actors.core import messages as msg
from vllama.actors.core.instance_state import State
from vllama.actors.ticket import Pending, Ticket
from vllama.errors import QueueFull, VllamaError, WaitTimeout


class Admissions:
    """Turns asks into messages to instances, and what the instances decide into tickets and refusals."""

    def __init__(self, actors: Mapping[str, Actor[State]], quiet: asyncio.Event) -> None:
        self._actors = actors
        self._quiet = quiet  # set whenever a ticket has ended
        self._pending: dict[int, Pending] = {}
        self._tickets: dict[int, Ticket] = {}

    @property
    def held(self) -> Iterable[Ticket]:
        """The tickets that are out."""
        return tuple(self._tickets.values())

    def ask(self, number: int, actor: Actor[State], request_id: str, priority: int | None = None) -> Pending:
        """Ask an instance. An awake one has answered on return. Raises QueueFull."""
        model = actor.name
        pending = self._pending[number] = Pending(number, model)
        if not actor.offer(msg.Acquire(number, request_id, priority)):
            del self._pending[number]
            raise QueueFull(f"too many requests for {model} at once; try again", model=model, retry_after_s=1)
        return pending

    async def answer(self, pending: Pending, wait_s: float | None) -> Ticket:
        """What an ask comes to. Raises the refusal, WaitTimeout after `wait_s`; leaving it gives the ask up."""
        ticket = pending.answered()
        if ticket is not None:
            return ticket
        model = pending.model
        try:
            return await pending.wait(wait_s)
        except TimeoutError as error:
            phase = self._actors[model].state.phase.value
            self.forget(pending.ask)
            text = f"{model} was not ready within the {wait_s:g} s that the caller would wait (it is {phase})"
            raise WaitTimeout(text, model=model, retry_after_s=5) from error
        except asyncio.CancelledError:
            self.forget(pending.ask)
            raise

    def forget(self, ask: int) -> None:
        """The caller of an ask has left before it was answered."""
        if (pending := self._pending.pop(ask, None)) is not None:
            self._actors[pending.model].tell(msg.Release(ask))

    def give_up(self, pending: Pending) -> None:
        """The same of one whose caller waits for no task; a ticket that has crossed is released."""
        self.forget(pending.ask)
        if (ticket := self._tickets.get(pending.ask)) is not None:
            ticket.release()

    def admit(self, actor: Actor[State], ask: int, how: msg.How) -> None:
        """The instance's answer: a ticket."""
        pending = self._pending.pop(ask, None)
        if pending is None:  # its caller has left; the Release is in the mailbox already
            return
        state, waited = actor.state, pending.waited_ms()
        ticket = Ticket(ask, actor.name, state.run, state.port, how, waited, self._release, self._unreachable)
        self._tickets[ask] = ticket
        pending.admit(ticket)

    def refuse(self, ask: int, error: VllamaError) -> None:
        """The instance's answer: no."""
        if (pending := self._pending.pop(ask, None)) is not None:
            pending.refuse(error)

    def refuse_all(self, error_for: Callable[[str], VllamaError]) -> None:
        """Everyone who waits is told, and nobody is waited for any more."""
        for ask, pending in tuple(self._pending.items()):
            self.forget(ask)
            pending.refuse(error_for(pending.model))

    def abort(self, asks: Iterable[int]) -> None:
        """Cut off those of these that hold a ticket."""
        for ask in asks:
            ticket = self._tickets.get(ask)
            if ticket is not None and ticket.on_abort is not None:
                ticket.on_abort()

    def abort_all(self) -> None:
        self.abort(tuple(self._tickets))

    def _release(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket.ask, None)
        self._actors[ticket.model].tell(msg.Release(ticket.ask))
        self._quiet.set()

    def _unreachable(self, ticket: Ticket) -> None:
        self._actors[ticket.model].tell(msg.EngineUnreachable(ticket.run))
