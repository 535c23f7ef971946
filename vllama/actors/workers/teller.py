"""The system's side of one worker process: answers what it asks, keeps it in tickets, and gives back what it held when it dies.

All that a worker does becomes a message to an instance, in the order in which it was said. A worker's end of the socket closing
is its death: its tickets are released in that turn.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from vllama.actors.core import messages as msg
from vllama.actors.core.batches import BatchBack, BatchMessage, GiveBatch
from vllama.actors.core.ledger import Ledger, LedgerBroken
from vllama.actors.ticket import Pending, Ticket
from vllama.actors.workers import wire
from vllama.actors.workers.link import Link
from vllama.errors import ShuttingDown, VllamaError

if TYPE_CHECKING:
    from vllama.actors.workers.bank import Bank

BATCH = 256  # tickets a batch: at the highest rates the next one must come before they are used up
Adopt = Callable[[int, bytes], None]  # a connection's descriptor, and what was read of it


class Teller:
    """One worker process, from its start to its death."""

    def __init__(
        self, bank: "Bank", sock: socket.socket, pid: int, adopt: Adopt, kill: Callable[[], None]
    ) -> None:
        self.pid = pid
        self.ready = asyncio.Event()
        self.lost = asyncio.Event()
        self.why = ""  # it was lost
        self.ledger = Ledger()
        self._bank = bank
        self._broken = False
        self._adopt = adopt
        self._kill = kill
        self._asking: dict[int, Pending] = {}  # by ref: asks that an instance has
        self._seeking: dict[int, asyncio.Task[None]] = {}  # by ref: what has to look at the cache first
        self._tickets: dict[int, Ticket] = {}  # of requests that asked, by ask; the others are in the ledger
        self._wanted: dict[str, int] = {}  # by model: tickets that an instance was asked to lend
        self._overdue: dict[int, asyncio.TimerHandle] = {}  # recalled batches
        self._link = Link(sock, wire.from_worker, self._take, self._end)

    # --- to the worker ------------------------------------------------------------------------------------------------

    def say(self, message: wire.FromSystem) -> None:
        self._link.say(message)

    def give(self, model: str, port: int, effect: GiveBatch) -> None:
        """An instance's answer to Lend."""
        self._wanted[model] -= BATCH
        if not effect.count:
            return
        if self.lost.is_set():
            self._bank.tell(model, BatchBack(effect.batch))
            return
        self.ledger.lend(effect.batch, model, effect.count)
        self.say(wire.Given(effect.batch, model, effect.run, port, effect.count))

    def recall(self, batches: Iterable[int]) -> None:
        """These are to come back. A worker that does not answer is killed: nobody else can say that it will admit no more."""
        for number in batches:
            if self.ledger.holds(number) and number not in self._overdue:
                self.say(wire.Recalled(number))
                timer = asyncio.get_running_loop().call_later(self._bank.answer_s, self._hung, number)
                self._overdue[number] = timer

    def abort(self, asks: Iterable[int], batches: Iterable[int]) -> None:
        """Cut off what was admitted on batches: reported already, or not yet. The others have tickets that can be aborted."""
        mine = [ask for ask in asks if ask in self.ledger.out]
        spans = list(self.ledger.spans(batches))
        if mine or spans:
            self.say(wire.Aborted(mine, spans))

    @property
    def in_flight(self) -> int:
        return len(self.ledger.out) + len(self._tickets)

    def _hung(self, number: int) -> None:
        self._overdue.pop(number, None)
        if self.ledger.holds(number):
            self.why = f"it did not give batch {number} back within {self._bank.answer_s:g} s"
            self._kill()  # the end of its socket does the rest

    # --- from the worker ----------------------------------------------------------------------------------------------

    def _take(self, message: wire.FromWorker, fd: int | None) -> None:
        if self._broken:
            return
        try:
            self._do(message, fd)
        except LedgerBroken as error:
            self.why = f"its report is wrong: {error}"
            self._broken = True
            self._kill()  # the end of its socket does the rest

    def _do(self, message: wire.FromWorker, fd: int | None) -> None:
        match message:
            case wire.Done(used, ended):
                self._done(used, ended)
            case wire.Ask():
                self._asked(message)
            case wire.Leave(ref):
                self._left(ref)
            case wire.Returned(batch):
                self._settled(batch)
                self._pass_on(self.ledger.returned(batch))
            case wire.Handed(data) if fd is not None:
                self._adopt(fd, data)
            case wire.Seek(ref, name):
                self._sought(ref, name)
            case wire.Unreachable(model, run):
                self._bank.tell(model, msg.EngineUnreachable(run))
            case wire.KeepAlive(model, for_s):
                self._bank.desk.keep_alive(model, for_s)
            case wire.Counted(cells):
                self._bank.on_counted(cells)
            case wire.Ready():
                self.ready.set()

    def _done(self, used: list[tuple[int, list[str]]], ended: list[int]) -> None:
        on_batches = []
        for ask in ended:
            ticket = self._tickets.pop(ask, None)
            if ticket is None:
                on_batches.append(ask)
            else:
                ticket.release()
        models = {self.ledger.model_of(batch) for batch, _ in used}
        self._pass_on(self.ledger.report(used, on_batches))
        for model in models:
            self._keep_in_tickets(model)
        if ended:
            self._bank.quiet.set()

    def _pass_on(self, told: list[tuple[str, BatchMessage]]) -> None:
        for model, message in told:
            if isinstance(message, BatchBack):
                self._settled(message.batch)
            self._bank.tell(model, message)

    def _settled(self, batch: int) -> None:
        if (timer := self._overdue.pop(batch, None)) is not None:
            timer.cancel()
        self._bank.quiet.set()

    def _keep_in_tickets(self, model: str) -> None:
        """The next batch is asked for when the last one is half used."""
        wanted = self._wanted.setdefault(model, 0)
        if (self.ledger.unused(model) + wanted) * 2 <= BATCH and not self._bank.stopping:
            self._wanted[model] += BATCH
            self._bank.lend(self, model, BATCH)

    # --- requests that ask --------------------------------------------------------------------------------------------

    def _asked(self, ask: wire.Ask) -> None:
        """Warm ones are answered in this turn. An ask has no task: one that is cancelled before its first step would not give
        it up, and its worker may say Leave in the same breath."""
        try:
            pending = self._bank.desk.ask(ask.model, ask.request, ask.priority)
        except VllamaError as error:
            self._refuse(ask.ref, error)
            return
        if pending is None:
            self._seek(ask.ref, self._begin(ask))
            return
        self._asking[ask.ref] = pending
        self._look(ask.ref)

    def _look(self, ref: int) -> None:
        """Say what an ask has come to; if it is not answered, look again when it is."""
        pending = self._asking.get(ref)
        if pending is None:
            return  # its caller has left
        try:
            ticket = pending.answered()
        except VllamaError as error:
            del self._asking[ref]
            self._refuse(ref, error)
            return
        if ticket is None:
            pending.then(partial(self._look, ref))
            return
        del self._asking[ref]
        self._admit(ref, ticket)

    def _left(self, ref: int) -> None:
        """The caller is gone, or was answered in the same moment."""
        if (pending := self._asking.pop(ref, None)) is not None:
            self._bank.desk.give_up(pending)
        elif (task := self._seeking.get(ref)) is not None:
            task.cancel()

    async def _begin(self, ask: wire.Ask) -> None:
        """The first ask of a model: there is no instance yet."""
        try:
            ticket = await self._bank.desk.ensure_instance_running(ask.model, None, ask.request, ask.priority)
        except VllamaError as error:
            self._refuse(ask.ref, error)
        else:
            self._admit(ask.ref, ticket)

    def _admit(self, ref: int, ticket: Ticket) -> None:
        self._tickets[ticket.ask] = ticket
        ticket.on_abort = lambda: self.say(wire.Aborted([ticket.ask], []))
        self.say(wire.Admitted(ref, ticket.ask, ticket.model, ticket.run, ticket.port, ticket.state))
        self._keep_in_tickets(ticket.model)

    def _refuse(self, ref: int, error: VllamaError) -> None:
        self.say(wire.Refused(ref, error.code, error.message, error.model, error.retry_after_s))

    def _sought(self, ref: int, name: str) -> None:
        if self._bank.stopping:
            self._refuse(ref, ShuttingDown("vllama is shutting down; ask again later", retry_after_s=5))
        else:
            self._seek(ref, self._find(ref, name))

    async def _find(self, ref: int, name: str) -> None:
        try:
            route = await self._bank.desk.route(name)
        except VllamaError as error:
            self._refuse(ref, error)
        else:
            self.say(wire.Found(ref, route.model, route.served))

    def _seek(self, ref: int, work: Coroutine[Any, Any, None]) -> None:
        task = self._seeking[ref] = self._bank.spawn(work)
        task.add_done_callback(lambda _: self._seeking.pop(ref, None))

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end(self, why: str) -> None:
        """Its end of the socket is closed: it is dead, or as good as."""
        self.why = self.why or why
        self.lost.set()
        for ref in (*self._asking, *self._seeking):
            self._left(ref)
        for timer in self._overdue.values():
            timer.cancel()
        self._overdue.clear()
        tickets, self._tickets = self._tickets, {}
        for ticket in tickets.values():
            ticket.release()
        self._pass_on(self.ledger.died())
        self._bank.quiet.set()
        self._bank.forget(self)

    def end(self) -> None:
        """The worker is to end what it has and exit."""
        self.say(wire.End())
