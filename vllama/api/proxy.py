"""The data path: which model, a ticket, bytes through.

A raw ASGI endpoint, not a FastAPI function: one object owns the request from its first byte to its last, so the ticket is
released where the answer ends and nowhere else. The engine's path is a constant of the route, never the client's spelling:
nothing but the paths below can be reached through vllama.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import Message, Receive, Scope, Send

from vllama.actors import Desk, System, Ticket
from vllama.api.answers import error_answer, error_event
from vllama.api.body import header, priority_of, wait_of
from vllama.api.engine_answer import LinkBroken
from vllama.api.kinds import unserved
from vllama.api.pace import Pace
from vllama.api.request_body import Body, read_request
from vllama.api.routes import RESPONSE, RESPONSE_CANCEL, RESPONSES
from vllama.api.stored import IdSeeker, Maker, Responses, gone
from vllama.api.tracing import Trace, Tracing, without
from vllama.api.traffic import HUNG_UP, Traffic
from vllama.api.upstream import Ask, Reply, Unreachable, Upstreams
from vllama.errors import EngineLost, InstanceStopped, Overloaded, ShuttingDown, VllamaError

RETRY_AFTER_S = 5.0

_HOP_BY_HOP = frozenset(
    b"connection keep-alive te trailer transfer-encoding upgrade proxy-connection proxy-authenticate proxy-authorization".split()
)
# What is ours to say, or nobody's business upstream.
NOT_FORWARDED = _HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"authorization",
    b"x-api-key",
    b"cookie",
    b"x-request-id",
}
NOT_RETURNED = _HOP_BY_HOP | {b"date", b"server", b"x-request-id"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Edge:
    """What every endpoint of the data path shares."""

    desk: Desk
    upstreams: Upstreams
    responses: Responses
    pace: Pace
    traffic: Traffic
    tracing: Tracing | None = None


class Proxy:
    """The ASGI endpoint of one path."""

    def __init__(self, edge: Edge, path: str, *, form: bool = False) -> None:
        self._edge = edge
        self._responses = edge.responses if path == RESPONSES else None
        self._path = path
        self._form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(self._edge, self._path, scope, receive, send)
        exchange.responses = self._responses
        exchange.form = self._form
        await exchange.run()


class StoredProxy:
    """The ASGI endpoint of what asks for a response by its id."""

    def __init__(self, edge: Edge, system: System, suffix: str = "") -> None:
        self._edge = edge
        self._system = system
        self._suffix = suffix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response_id: str = scope["path_params"]["response_id"]
        maker = self._edge.responses.maker_of(response_id, self._system)
        # Only ids that an engine has given are known, and those are harmless in a path.
        path = f"{RESPONSES}/{response_id}{self._suffix}"
        exchange = Exchange(self._edge, path, scope, receive, send)
        exchange.route = RESPONSE_CANCEL if self._suffix else RESPONSE
        exchange.maker = maker
        await exchange.run()


class Exchange:
    """One request and its answer: answered exactly once, unless its caller leaves first."""

    responses: Responses | None = None  # who is told which response was made
    maker: Maker | None = None  # the one engine that can answer, where the body names none
    form = False
    route = ""  # the pattern, where the path is none

    def __init__(self, edge: Edge, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        self._desk = edge.desk
        self._upstreams = edge.upstreams
        self._pace = edge.pace
        self._traffic = edge.traffic
        self._tracing = edge.tracing
        self._trace: Trace | None = None
        self._path = path
        query: bytes = scope.get("query_string", b"")
        self._target = path.encode() + (b"?" + query if query else b"")
        self._scope = scope
        self._receive = receive
        self._send_on = send
        self._headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        self._id = _request_id(self._headers)
        self._model = ""
        self._priority: int | None = None
        self._work: asyncio.Task[None] | None = None
        self._gone = False  # the client hung up
        self._failure: VllamaError | None = None  # what the answer ends with, where it does not end well
        self._started = False  # the answer's head is out
        self._finished = False  # its last byte is out
        self._events = False  # it is an event stream whose end we may append to
        self._tail = b""
        self._known = ""  # the model, once it is one that there is
        self._status, self._received, self._sent = 0, 0, 0

    async def run(self) -> None:
        """The whole exchange, counted and, where that is wanted, traced."""
        begun = time.perf_counter()
        route = self.route or self._path
        if self._tracing is not None:
            self._trace = self._tracing.begin(
                self._scope["method"], route, self._headers, self._id.decode("latin-1")
            )
        try:
            await self._run()
        finally:
            gone = self._gone and not self._finished  # a client that has had all of it may leave
            cut = self._started and (gone or self._failure is not None)
            status = HUNG_UP if gone or not self._status else self._status
            if self._trace is not None:
                error = self._failure.code if self._failure is not None else "client_left" if gone else ""
                self._trace.end(status, error)
            self._traffic.count(
                self._known,
                route,
                status,
                time.perf_counter() - begun,
                self._received,
                self._sent,
                cut=cut,
            )

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self._sent += len(message.get("body", b""))
        else:
            self._status = message["status"]
        await self._send_on(message)

    async def _run(self) -> None:
        """The work is a task of its own so that a hang-up or an operator can end it anywhere."""
        try:
            if self._desk.stopping:
                raise ShuttingDown("vllama is shutting down.", retry_after_s=RETRY_AFTER_S)
            wait_s = wait_of(self._headers)
            self._priority = priority_of(self._headers, self._desk.config.priority_max)
            body = await self._read()
            if body is None:
                return
            self._model, self._received = body.model, body.size
        except VllamaError as error:
            self._failure = error
        else:
            try:
                async with asyncio.TaskGroup() as group:
                    self._work = group.create_task(self._serve(body, wait_s))
                    watch = group.create_task(self._watch())
                    await asyncio.wait((self._work,))
                    watch.cancel()
            finally:
                body.close()
        if self._failure is not None and not self._gone and not self._finished:
            await self._fail(self._failure)

    async def _read(self) -> Body | None:
        """The body, and with it the model; what asks for a response by its id has neither."""
        if self.maker is not None:
            return Body(self.maker.model)
        return await read_request(
            self._receive, self._headers, self._desk.config.body_bytes_max, form=self.form
        )

    async def _watch(self) -> None:
        """End the work when the client hangs up. The body is read by now: what can still come is the hang-up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._work is not None:
            self._work.cancel()

    def _abort(self) -> None:
        """The operator, or the end of the server, cuts the request off."""
        if self._finished or self._failure is not None or self._gone:
            return
        kind: type[VllamaError] = InstanceStopped
        why = "an operator stopped the model or put it to sleep"
        if self._desk.stopping:
            kind, why = ShuttingDown, "vllama is shutting down"
        text = f"{self._model}: the request was cut off: {why}"
        self._failure = kind(text, model=self._model, retry_after_s=RETRY_AFTER_S)
        if self._work is not None:
            self._work.cancel()

    async def _serve(self, body: Body, wait_s: float | None) -> None:
        """Wait for an awake engine, then pass bytes. However this is left, the ticket is released, after the engine's
        connection has been closed."""
        try:
            route = await self._desk.route(self._model)
        except VllamaError as error:
            self._failure = error
            return
        if route.served != self._model:
            body.rename(route.served)
        self._model = self._known = route.model
        if refused := unserved(self._desk.catalog.kind_of(route.model), self._path, route.served):
            self._failure = refused
            return
        if not await self._attempt(body, wait_s, last=False):
            await self._attempt(body, wait_s, last=True)

    async def _attempt(self, body: Body, wait_s: float | None, *, last: bool) -> bool:
        """False when nobody listens at the engine: it is dying, nothing was sent, and another try gets its successor."""
        if self._trace is not None:
            self._trace.waiting(self._model)
        try:
            ticket = await self._desk.ensure_instance_running(
                self._model, wait_s, self._id.decode("latin-1"), self._priority
            )
        except VllamaError as error:
            self._failure = error
            return True
        if self._trace is not None:
            self._trace.admitted(self._model, ticket.state)
        if ticket.state != "warm":
            self._pace.rose(ticket.wait_ms / 1000)
        begun = time.monotonic()
        try:
            ticket.on_abort = self._abort
            if body.keep_s is not None:
                self._desk.keep_alive(ticket.model, body.keep_s)
            if self.maker is not None and ticket.run != self.maker.run:
                self._failure = gone(self._path, self._model)
                return True
            await self._forward(ticket, body)
        except LinkBroken as error:
            if isinstance(error, Unreachable):
                ticket.unreachable()
                if not last:
                    return False
            self._failure = self._failure or self._lost(error)
        except Overloaded as error:
            self._failure = error
        finally:
            ticket.release()
            if self._trace is not None:
                self._trace.forwarded()
            self._pace.held(time.monotonic() - begun)
        return True

    async def _forward(self, ticket: Ticket, body: Body) -> None:
        """The engine's answer as it is: status, headers but those of the hop, and every byte as it comes."""
        headers = forwardable(self._headers, NOT_FORWARDED, b"x-vllama-")
        if self._trace is not None:
            headers = without(headers) + self._trace.forwarding(ticket.host, ticket.port)
        headers.append((b"x-request-id", self._id))
        headers.append((b"content-length", b"%d" % body.size))
        method = self._scope["method"]
        # An engine may know GET alone. The server drops the body of what answers a HEAD.
        ask = Ask("GET" if method == "HEAD" else method, self._target, headers, body.content)
        async with self._upstreams.stream(ticket.host, ticket.port, ask) as reply:
            await self._start(reply, ticket)
            seeker = None
            if self.responses is not None and reply.answer.status == 200:
                seeker = IdSeeker(self.responses, Maker(ticket.model, ticket.run))
            async for piece in reply.pieces():
                if seeker is not None:
                    seeker.feed(piece)
                self._tail = (self._tail + piece if len(piece) < 2 else piece)[-2:]
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        self._finished = True

    async def _start(self, reply: Reply, ticket: Ticket) -> None:
        headers = forwardable(reply.headers(), NOT_RETURNED)
        kind = header(headers, b"content-type") or ""
        self._events = kind.startswith("text/event-stream") and header(headers, b"content-length") is None
        headers += [
            (b"x-request-id", self._id),
            (b"x-vllama-state", ticket.state.encode()),
            (b"x-vllama-wait-ms", f"{ticket.wait_ms:.1f}".encode()),
        ]
        self._started = True
        await self._send({"type": "http.response.start", "status": reply.answer.status, "headers": headers})

    async def _fail(self, error: VllamaError) -> None:
        """Say what went wrong in the way that is still open: an answer, a last event, or a torn connection."""
        if not self._started:
            error.retry_after_s = self._pace.retry_after_s(error)
            answer = error_answer(error, {"X-Request-Id": self._id.decode("latin-1")})
            await answer(self._scope, self._receive, self._send)
        elif self._events:
            # An event that broke off halfway is closed first, or it would swallow ours.
            gap = b"" if self._tail in (b"", b"\n\n") else b"\n\n"
            await self._send(
                {"type": "http.response.body", "body": gap + error_event(error), "more_body": False}
            )
        else:
            # Returning without the last byte makes the server tear the connection: the client sees that it is cut.
            log.warning("request %s: %s", self._id.decode("latin-1"), error.message)
        self._finished = True

    def _lost(self, error: LinkBroken) -> EngineLost:
        when = "while it answered" if self._started else "before it answered"
        cause = str(error)
        return EngineLost(
            f"{self._model}: its engine broke the connection {when} ({cause}). Send the request again; `vllama ps` "
            "shows the engine's state and log.",
            model=self._model,
            retry_after_s=1.0,
        )


def _request_id(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The client's own id if it is short and printable, else a new one."""
    given = header(headers, b"x-request-id")
    if given and len(given) <= 128 and given.isascii() and given.isprintable():
        return given.encode()
    return uuid.uuid4().hex.encode()


def forwardable(
    headers: Sequence[tuple[bytes, bytes]], dropped: frozenset[bytes], prefix: bytes | None = None
) -> list[tuple[bytes, bytes]]:
    """The headers without those of the hop (those that `Connection` names too), the dropped and the prefixed."""
    also = {
        token.strip().lower() for key, value in headers if key == b"connection" for token in value.split(b",")
    }
    return [
        (key, value)
        for key, value in headers
        if key not in dropped and key not in also and not (prefix and key.startswith(prefix))
    ]
