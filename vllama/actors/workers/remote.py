"""A worker process's desk: the data path asks it as it would ask the System, which is another process.

Tickets of batches are taken here, at once, and reported at the end of the loop's turn; what no batch has is asked for over the
socket. Every VllamaError that the system answers comes out as it would there.
"""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable

from vllama import errors
from vllama.actors.core.messages import How
from vllama.actors.core.purse import Batch, Purse
from vllama.actors.ticket import Pending, Ticket
from vllama.actors.workers import wire
from vllama.actors.workers.access import WorkerAccess
from vllama.actors.workers.link import Link
from vllama.config import ModelConfig, VllamaConfig
from vllama.errors import ShuttingDown, VllamaError, WaitTimeout
from vllama.names import Names, Route

_ERRORS: dict[str, type[VllamaError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, VllamaError) and kind is not errors.JournalBroken
}


REPORT_S = 0.002  # at most so often, and so late, is told what was done with tickets


class Kinds:
    """What each model surely does."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}

    def kind_of(self, model: str) -> str:
        return self.kinds.get(model, "")


class RemoteDesk:
    """Tickets from the system process. `config` and `access` are there once `begun` is set."""

    config: VllamaConfig
    access: WorkerAccess

    def __init__(self, sock: socket.socket, lost: Callable[[str], None]) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.stopping = False
        self.catalog = Kinds()
        self._names = Names()
        self._purse = Purse()
        self._refs = itertools.count(1)
        self._asking: dict[int, Pending] = {}
        self._seeking: dict[int, asyncio.Future[Route]] = {}
        self._tickets: dict[int, Ticket] = {}
        self._loop = asyncio.get_running_loop()
        self._soon = False
        self._told_at = 0.0
        self._link = Link(sock, wire.from_system, self._take, lost)

    def ready(self) -> None:
        """This process accepts connections."""
        self._link.say(wire.Ready())

    def counted(self, cells: list[tuple[tuple[str, str, int], list[float]]]) -> None:
        """The traffic of this process since the last time."""
        self._link.say(wire.Counted(cells))
        self._link.flush()

    def hand_over(self, fd: int, data: bytes) -> None:
        """The system serves this connection from here on. The descriptor is closed here."""
        self._link.hand(wire.Handed(data), fd)

    # --- what the data path asks --------------------------------------------------------------------------------------

    def find(self, name: str) -> Route | None:
        return self._names.find(name)

    async def route(self, name: str) -> Route:
        if (route := self._names.find(name)) is not None:
            return route
        ref = next(self._refs)
        future: asyncio.Future[Route] = self._loop.create_future()
        self._seeking[ref] = future
        self._link.say(wire.Seek(ref, name))
        try:
            return await future
        finally:
            if self._seeking.pop(ref, None) is not None:
                self._link.say(wire.Leave(ref))

    def ask(self, model: str, request_id: str = "", priority: int | None = None) -> Pending:
        """A ticket is there on return if a batch has one."""
        if self.stopping:
            raise ShuttingDown("vllama is shutting down; ask again later", model=model, retry_after_s=5)
        taken = self._purse.take(model, request_id)
        if taken is not None:
            ask, batch = taken
            pending = Pending(0, model)
            pending.admit(self._ticket(ask, batch.model, batch.run, batch.port, "warm", pending))
            self._tell_soon()
            return pending
        ref = next(self._refs)
        pending = self._asking[ref] = Pending(ref, model)
        self._link.say(wire.Ask(ref, model, request_id, priority))
        return pending

    def give_up(self, pending: Pending) -> None:
        if self._asking.pop(pending.ask, None) is not None:
            self._link.say(wire.Leave(pending.ask))
            return
        with contextlib.suppress(VllamaError):  # a refusal that has crossed
            if (ticket := pending.answered()) is not None:
                ticket.release()

    async def answer(self, pending: Pending, wait_s: float | None = None) -> Ticket:
        ticket = pending.answered()
        if ticket is not None:
            return ticket
        try:
            return await pending.wait(wait_s)
        except TimeoutError as error:
            self.give_up(pending)
            text = f"{pending.model} was not ready within the {wait_s:g} s that the caller would wait"
            raise WaitTimeout(text, model=pending.model, retry_after_s=5) from error
        except asyncio.CancelledError:
            self.give_up(pending)
            raise

    async def ensure_instance_running(
        self, model: str, wait_s: float | None = None, request_id: str = "", priority: int | None = None
    ) -> Ticket:
        return await self.answer(self.ask(model, request_id, priority), wait_s)

    def keep_alive(self, model: str, for_s: float) -> None:
        self._tell()  # the request that says so was admitted before
        self._link.say(wire.KeepAlive(model, for_s))

    # --- tickets ------------------------------------------------------------------------------------------------------

    def _ticket(self, ask: int, model: str, run: int, port: int, how: How, pending: Pending) -> Ticket:
        waited = pending.waited_ms()
        ticket = Ticket(ask, model, run, port, how, waited, self._release, self._unreachable)
        self._tickets[ask] = ticket
        return ticket

    def _release(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket.ask, None)
        self._purse.end(ticket.ask)
        self._tell_soon()

    def _unreachable(self, ticket: Ticket) -> None:
        self._purse.drop(ticket.model, ticket.run)
        self._tell()
        self._link.say(wire.Unreachable(ticket.model, ticket.run))

    def _tell_soon(self) -> None:
        """At the end of this turn, unless something was told a moment ago: under load one frame tells of many requests."""
        if not self._soon:
            self._soon = True
            self._loop.call_at(self._told_at + REPORT_S, self._tell)

    def _tell(self) -> None:
        """What was taken and what has ended, in this order."""
        self._soon = False
        if self._purse.untold:
            self._told_at = self._loop.time()
            self._link.say(wire.Done(*self._purse.report()))

    # --- from the system ----------------------------------------------------------------------------------------------

    def _take(self, message: wire.FromSystem, _: int | None) -> None:
        match message:
            case wire.Given(batch, model, run, port, count):
                self._purse.put(Batch(batch, model, run, port, count))
            case wire.Recalled(batch):
                self._purse.recall(batch)
                self._tell()
                self._link.say(wire.Returned(batch))
            case wire.Admitted():
                self._admitted(message)
            case wire.Refused():
                self._refused(message)
            case wire.Aborted(asks, spans):
                self._abort(asks, spans)
            case wire.Found(ref, model, served):
                if (future := self._seeking.pop(ref, None)) is not None and not future.done():
                    future.set_result(Route(model, served))
            case wire.Names(models):
                self._rename(models)
            case wire.Setup(config, data_keys, control_keys, control_off):
                self.config = VllamaConfig.model_validate_json(config)
                self.access = WorkerAccess(tuple(data_keys), tuple(control_keys), control_off)
                self.begun.set()
            case wire.Stopping():
                self.stopping = True
            case wire.End():
                self.ended.set()

    def _admitted(self, m: wire.Admitted) -> None:
        pending = self._asking.pop(m.ref, None)
        if pending is None:  # its caller has left; what was admitted meanwhile goes back
            self._purse.end(m.ask)
            self._tell_soon()
            return
        pending.admit(self._ticket(m.ask, m.model, m.run, m.port, m.how, pending))

    def _refused(self, m: wire.Refused) -> None:
        error = _ERRORS.get(m.code, VllamaError)(m.message, model=m.model, retry_after_s=m.retry_after_s)
        if (future := self._seeking.pop(m.ref, None)) is not None:
            if not future.done():
                future.set_exception(error)
        elif (pending := self._asking.pop(m.ref, None)) is not None:
            pending.refuse(error)

    def _abort(self, asks: list[int], spans: list[tuple[int, int]]) -> None:
        cut = set(asks)
        for first, count in spans:
            cut.update(ask for ask in self._tickets if first <= ask < first + count)
        for ask in cut:
            if (ticket := self._tickets.get(ask)) is not None and ticket.on_abort is not None:
                ticket.on_abort()

    def _rename(self, models: list[wire.Model]) -> None:
        self.catalog.kinds = {model.id: model.kind for model in models}
        entries = {
            model.id: ModelConfig.model_construct(
                aliases=tuple(model.aliases), lora=dict.fromkeys(model.adapters, "")
            )
            for model in models
            if model.aliases or model.adapters
        }
        self._names = Names((model.id for model in models), entries)
