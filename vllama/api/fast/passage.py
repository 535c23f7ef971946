"""One request and its answer on the fast path: a ticket, bytes to the engine, bytes back, and the ticket's release.

No task: every step is a call from the loop, about the client's connection (`front`), the engine's (`Link`) or the ticket. It does
what proxy.Exchange does, word for word, for the requests that it takes.
"""

import logging
import time
from typing import Protocol

from vllama.actors import Pending, Route, Ticket
from vllama.api.answers import error_answer, error_event
from vllama.api.engine_answer import Answer, LinkBroken
from vllama.api.fast.common import Common, request_id
from vllama.api.fast.head import Head
from vllama.api.fast.wording import answer_head, plain_head
from vllama.api.link import Link
from vllama.api.proxy import RETRY_AFTER_S
from vllama.api.routes import RESPONSES
from vllama.api.stored import IdSeeker, Maker
from vllama.api.traffic import HUNG_UP
from vllama.errors import EngineLost, InstanceStopped, Overloaded, ShuttingDown, VllamaError

log = logging.getLogger(__name__)


class Client(Protocol):
    """The connection that is answered."""

    def send(self, data: bytes) -> bool:
        """False: it is not all on its way; `Passage.resume` is called when it is."""

    def default_headers(self) -> bytes: ...

    def finished(self, *, keep: bool) -> None:
        """The answer is out; `keep` False: close the connection behind it."""


class Passage:
    """From the ask to the last byte. `start` begins it; it ends with `Client.finished`, or with `gone`."""

    __slots__ = (
        "_arrived", "_begun", "_body", "_chunking", "_client", "_common", "_events", "_head", "_id", "_link", "_model",
        "_out", "_over", "_path", "_pending", "_second", "_seeker", "_sent", "_started", "_status", "_tail", "_ticket", "framed",
    )  # fmt: skip

    def __init__(
        self, common: Common, client: Client, head: Head, path: str, route: Route, body: bytes
    ) -> None:
        self.framed = path != RESPONSES  # there the response's id is sought in the bytes
        self._common = common
        self._client = client
        self._head = head
        self._path = path
        self._model = route.model
        self._body = body
        self._id = request_id(head)
        self._pending: Pending | None = None
        self._ticket: Ticket | None = None
        self._link: Link | None = None
        self._arrived = time.perf_counter()
        self._status, self._sent = 0, 0
        self._begun = 0.0
        self._second = False  # the engine that was asked first listens no more
        self._started = False  # the answer's head is out, or about to be
        self._over = False
        self._events = False  # an event stream whose end we may append to
        self._chunking = False  # the answer's body is framed here
        self._seeker: IdSeeker | None = None
        self._tail = b""
        self._out = b""  # the head, until there is something to send with it

    # --- a ticket

    def start(self) -> bool:
        """False: this model's instance has not begun, and the ordinary way must."""
        try:
            pending = self._common.desk.ask(self._model, self._id.decode("latin-1"))
        except VllamaError as error:
            self._fail(error)
            return True
        if pending is None:
            return False
        self._pending = pending
        self._look()
        return True

    def _look(self) -> None:
        """Go on if the ask is answered; else when it is."""
        pending = self._pending
        if pending is None or self._over:
            return
        try:
            ticket = pending.answered()
        except VllamaError as error:
            self._pending = None
            self._fail(error)
            return
        if ticket is None:
            pending.then(self._look)
            return
        self._pending = None
        self._ticket = ticket
        if ticket.state != "warm":
            self._common.pace.rose(ticket.wait_ms / 1000)
        self._begun = time.monotonic()
        ticket.on_abort = self._abort
        self._ask()

    # --- the engine

    def _ask(self) -> None:
        """On a connection that is kept, if there is one that lives."""
        ticket = self._ticket
        assert ticket is not None
        address = (ticket.host, ticket.port)
        links = self._common.links
        while (link := links.kept(address)) is not None:
            if self._on(link):
                return
        links.begin(address, self._linked)

    def _on(self, link: Link) -> bool:
        ticket = self._ticket
        assert ticket is not None
        body = self._body
        self._link = link
        return link.ask(
            b"POST %b HTTP/1.1\r\nhost: %b:%d\r\n%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (
                self._head.target,
                ticket.host.encode(),
                ticket.port,
                self._head.forward,
                self._id,
                len(body),
                body,
            ),
            self,
        )

    def _linked(self, found: Link | OSError | Overloaded) -> None:
        """A new connection, or none: then the engine is dying, and its successor is asked."""
        if self._over:
            if isinstance(found, Link):
                found.drop()
            return
        if isinstance(found, Link):
            if not self._on(found):
                self.broken(LinkBroken("it closed the connection"))
            return
        if isinstance(found, Overloaded):
            self._fail(found)
            return
        ticket, self._ticket = self._ticket, None
        assert ticket is not None
        ticket.unreachable()
        ticket.release()
        self._common.pace.held(time.monotonic() - self._begun)
        if self._second:
            self._fail(self._lost(str(found) or type(found).__name__))
            return
        self._second = True
        if not self.start():
            self._fail(self._lost(str(found)))

    # --- the answer, as Link's Asker

    def begin(self, answer: Answer, length: int | None) -> None:
        ticket = self._ticket
        assert ticket is not None
        self._started = True
        self._status = answer.status
        self._chunking = length is None and answer.status not in (204, 304)
        self._events = self._chunking and answer.streams
        if not self.framed and answer.status == 200:
            self._seeker = IdSeeker(self._common.responses, Maker(ticket.model, ticket.run))
        self._out = answer_head(
            answer,
            length,
            self._client.default_headers(),
            self._id,
            ticket,
            chunked=self._chunking,
            keep=self._head.keep,
        )

    def frames(self, data: bytes, size: int, *, last: bool) -> None:
        self._sent += size
        if self._events:
            self._tail = data[-4:-2]
        if last:
            self._chunking = False  # these bytes have the end in them
        self._send(data)

    def piece(self, data: bytes) -> None:
        self._sent += len(data)
        if self._seeker is not None:
            self._seeker.feed(data)
        if self._events:
            self._tail = (self._tail + data if len(data) < 2 else data)[-2:]
        self._send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunking else data)

    def flush(self) -> None:
        if self._out:
            self._send(b"")

    def done(self) -> None:
        self._link = None
        if self._chunking or self._out:
            self._send(b"0\r\n\r\n" if self._chunking else b"")
        self._end(keep=self._head.keep)

    def broken(self, error: LinkBroken) -> None:
        self._link = None
        self._fail(self._lost(str(error)))

    def _send(self, data: bytes) -> None:
        if self._out:
            data, self._out = self._out + data, b""
        if not self._client.send(data) and self._link is not None:
            self._link.pause()

    # --- the client

    def resume(self) -> None:
        """The client has read what was sent."""
        if self._link is not None:
            self._link.resume()

    def gone(self) -> None:
        """The client has hung up: the engine's connection is closed now, and then the ticket released."""
        if not self._over:
            self._over = True
            self._let_go()
            self._count(HUNG_UP, cut=self._started)

    # --- the end

    def _abort(self) -> None:
        """The operator, or the end of the server, cuts the request off."""
        if self._over:
            return
        kind: type[VllamaError] = InstanceStopped
        why = "an operator stopped the model or put it to sleep"
        if self._common.desk.stopping:
            kind, why = ShuttingDown, "vllama is shutting down"
        text = f"{self._model}: the request was cut off: {why}"
        self._fail(kind(text, model=self._model, retry_after_s=RETRY_AFTER_S))

    def _fail(self, error: VllamaError) -> None:
        """Say what went wrong in the way that is still open: an answer, a last event, or a torn connection."""
        self._let_go()
        keep = self._head.keep
        cut = self._started
        if not cut:
            error.retry_after_s = self._common.pace.retry_after_s(error)
            answer = error_answer(error, {"X-Request-Id": self._id.decode("latin-1")})
            self._status, self._sent = answer.status_code, len(answer.body)
            self._client.send(
                plain_head(answer, self._client.default_headers(), keep=keep) + bytes(answer.body)
            )
        elif self._events and self._chunking:
            # An event that broke off halfway is closed first, or it would swallow ours.
            event = (b"" if self._tail in (b"", b"\n\n") else b"\n\n") + error_event(error)
            self._sent += len(event)
            self._send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))
        else:
            keep = False  # a connection that is torn shows the client that its answer is cut
            log.warning("request %s: %s", self._id.decode("latin-1"), error.message)
        self._end(keep=keep, cut=cut)

    def _end(self, *, keep: bool, cut: bool = False) -> None:
        self._over = True
        self._release()
        self._count(self._status, cut=cut)
        self._client.finished(keep=keep)

    def _let_go(self) -> None:
        """Of the engine's connection, of the wait, of the ticket: in this order."""
        if (link := self._link) is not None:
            self._link = None
            link.drop()
        if (pending := self._pending) is not None:
            self._pending = None
            self._common.desk.give_up(pending)
        self._release()

    def _release(self) -> None:
        if (ticket := self._ticket) is not None:
            self._ticket = None
            ticket.release()
            self._common.pace.held(time.monotonic() - self._begun)

    def _count(self, status: int, *, cut: bool) -> None:
        seconds = time.perf_counter() - self._arrived
        self._common.traffic.count(
            self._model, self._path, status, seconds, len(self._body), self._sent, cut=cut
        )

    def _lost(self, cause: str) -> EngineLost:
        when = "while it answered" if self._started else "before it answered"
        return EngineLost(
            f"{self._model}: its engine broke the connection {when} ({cause}). Send the request again; `vllama ps` "
            "shows the engine's state and log.",
            model=self._model,
            retry_after_s=1.0,
        )
