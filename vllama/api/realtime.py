"""The websocket /v1/realtime, carried through: both directions, message by message, under one ticket from begin to end.

The model is in the query, as OpenAI's clients say it, or in the first `session.update`, as vLLM's do. The latter wait for
`session.created` before they speak, so it is said here, and the engine's own is swallowed when its turn comes.
"""

import asyncio
import json
import time
import uuid
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from vllama.actors import System, Ticket
from vllama.api.answers import error_answer
from vllama.api.body import priority_of, wait_of
from vllama.api.jsonscan import checked_model
from vllama.api.proxy import NOT_FORWARDED, RETRY_AFTER_S, forwardable
from vllama.api.routes import REALTIME
from vllama.api.traffic import HUNG_UP, Traffic
from vllama.errors import BadRequest, EngineLost, InstanceStopped, ShuttingDown, VllamaError

HELD_MAX = 64  # messages that wait for the engine; the client's connection waits beyond
CONNECT_TIMEOUT_S = 10.0
UPDATE_CHARS_MAX = 65_536

SWITCHED = 101
NORMAL, GOING_AWAY, REFUSED, BROKEN, TRY_LATER = 1000, 1001, 1008, 1011, 1013


class Realtime:
    """The ASGI endpoint."""

    def __init__(self, system: System, traffic: Traffic) -> None:
        self._system = system
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = Session(self._system, scope, receive, send)
        begun = time.perf_counter()
        try:
            await session.run()
        finally:
            self._traffic.count(session.known, REALTIME, session.status, time.perf_counter() - begun)


class Session:
    """One client's connection and the engine's."""

    def __init__(self, system: System, scope: Scope, receive: Receive, send: Send) -> None:
        self._system = system
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._held: asyncio.Queue[str | bytes] = asyncio.Queue(HELD_MAX)
        self._work: asyncio.Task[None] | None = None
        self._model = ""
        self._served = ""
        self._accepted = False
        self._gone = False
        self._failure: VllamaError | None = None
        self._code = NORMAL

    @property
    def known(self) -> str:
        """The model, once it is one that there is."""
        return self._model

    @property
    def status(self) -> int:
        """Of the handshake's answer."""
        if self._accepted:
            return SWITCHED
        return HUNG_UP if self._gone or self._failure is None else self._failure.status_hint

    async def run(self) -> None:
        """The whole connection: refused by a status while nothing was accepted, afterwards by an event and a close."""
        if (await self._receive())["type"] != "websocket.connect":
            return
        async with asyncio.TaskGroup() as group:
            self._work = group.create_task(self._guarded())
            reader = group.create_task(self._read())
            await asyncio.wait((self._work,))
            reader.cancel()
        if self._gone:
            return
        if self._failure is not None:
            await self._fail(self._failure)
        elif self._accepted:
            await self._tell({"type": "websocket.close", "code": self._code})

    async def _read(self) -> None:
        """The only reader of the client: its messages are held, its leaving ends everything."""
        while (message := await self._receive())["type"] != "websocket.disconnect":
            text = message.get("text")
            await self._held.put(text if text is not None else message["bytes"])
        self._gone = True
        if self._work is not None:
            self._work.cancel()

    async def _guarded(self) -> None:
        try:
            await self._serve()
        except VllamaError as error:
            self._failure = error
        except InvalidStatus as error:
            status = error.response.status_code
            self._failure = BadRequest(
                f"{self._model}: its engine refuses a websocket here (status {status}); the model may not do realtime.",
                model=self._model,
            )
        except (OSError, TimeoutError, WebSocketException) as error:
            self._failure = EngineLost(
                f"{self._model}: its engine broke the connection ({str(error) or type(error).__name__}). Connect again; "
                "`vllama ps` shows the engine's state and log.",
                model=self._model,
                retry_after_s=1.0,
            )

    async def _serve(self) -> None:
        if self._system.stopping:
            raise ShuttingDown("vllama is shutting down.", retry_after_s=RETRY_AFTER_S)
        wait_s = wait_of(self._headers)
        priority = priority_of(self._headers, self._system.config.priority_max)
        query: bytes = self._scope.get("query_string", b"")
        named = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("model", [])
        if len(named) > 1:
            raise BadRequest("The query names `model` more than once.")
        first: str | None = None
        if named:
            name = checked_model(named[0])
        else:
            await self._accept(None)
            session = {
                "type": "session.created",
                "id": f"sess-{uuid.uuid4().hex}",
                "created": int(time.time()),
            }
            await self._tell({"type": "websocket.send", "text": json.dumps(session)})
            name, first = await self._first_update()
        route = await self._system.route(name)
        self._model, self._served = route.model, route.served
        ticket = await self._system.ensure_instance_running(route.model, wait_s, priority=priority)
        try:
            ticket.on_abort = self._abort
            await self._carry(ticket, query.decode("latin-1"), first)
        finally:
            ticket.release()

    async def _first_update(self) -> tuple[str, str]:
        """The message that names the model. What comes before it is answered as vLLM answers it."""
        while True:
            message = await self._held.get()
            event = _update_in(message)
            if event is not None and isinstance(message, str):
                return checked_model(event.get("model")), message
            text = "Model not validated. Make sure to validate the model by sending a session.update event."
            await self._say_error(text, "model_not_validated")

    async def _carry(self, ticket: Ticket, query: str, first: str | None) -> None:
        headers = [
            (key.decode("latin-1"), value.decode("latin-1"))
            for key, value in forwardable(self._headers, NOT_FORWARDED, b"x-vllama-")
            if not key.startswith(b"sec-websocket-")
        ]
        async with connect(
            f"ws://{ticket.host}:{ticket.port}{REALTIME}" + (f"?{query}" if query else ""),
            additional_headers=headers,
            subprotocols=self._scope.get("subprotocols") or None,
            compression=None,
            proxy=None,
            open_timeout=CONNECT_TIMEOUT_S,
            close_timeout=1,
            ping_interval=None,
            max_size=None,
        ) as engine:
            if first is not None:
                await engine.recv()  # its session.created: the client has had ours
                await engine.send(self._renamed(first))
            else:
                await self._accept(engine.subprotocol)
            async with asyncio.TaskGroup() as group:
                ways = [group.create_task(self._up(engine)), group.create_task(self._down(engine))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
        code = engine.close_code
        if code is None or code == 1006:
            raise EngineLost(f"{self._model}: its engine ended.", model=self._model, retry_after_s=1.0)
        self._code = code if code in (NORMAL, GOING_AWAY) or 1007 <= code <= 4999 else NORMAL

    async def _up(self, engine: ClientConnection) -> None:
        while True:
            message = await self._held.get()
            try:
                await engine.send(self._renamed(message))
            except ConnectionClosed:
                return

    async def _down(self, engine: ClientConnection) -> None:
        try:
            async for message in engine:
                kind = "text" if isinstance(message, str) else "bytes"
                await self._tell({"type": "websocket.send", kind: message})
        except ConnectionClosed:
            return

    def _renamed(self, message: str | bytes) -> str | bytes:
        """A `session.update` under the name that the engine knows; anything else as it is."""
        event = _update_in(message)
        if event is None or event.get("model") == self._served:
            return message
        name = event.get("model")
        route = self._system.find(name) if isinstance(name, str) else None
        if route is None or route.model != self._model:
            return message  # the engine says what it thinks of it
        return json.dumps(event | {"model": route.served})

    def _abort(self) -> None:
        """The operator, or the end of the server, cuts the session off."""
        if self._failure is None and not self._gone:
            kind: type[VllamaError] = ShuttingDown if self._system.stopping else InstanceStopped
            why = (
                "vllama is shutting down"
                if self._system.stopping
                else "an operator stopped the model or put it to sleep"
            )
            self._failure = kind(f"{self._model}: the session was cut off: {why}", model=self._model)
            if self._work is not None:
                self._work.cancel()

    async def _fail(self, error: VllamaError) -> None:
        if not self._accepted:
            await error_answer(error)(self._scope, self._receive, self._send)
            return
        await self._say_error(error.message, error.code)
        status = error.status_hint
        code = REFUSED if status < 500 else TRY_LATER if status == 503 else BROKEN
        await self._tell({"type": "websocket.close", "code": code, "reason": error.code})

    async def _say_error(self, message: str, code: str) -> None:
        event = {"type": "error", "error": message, "code": code}
        await self._tell({"type": "websocket.send", "text": json.dumps(event)})

    async def _accept(self, subprotocol: str | None) -> None:
        self._accepted = True
        await self._tell({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})

    async def _tell(self, message: dict[str, object]) -> None:
        """A client that has left is noticed by the reader."""
        try:
            await self._send(message)
        except OSError:
            self._gone = True


def _update_in(message: str | bytes) -> dict[str, object] | None:
    """The `session.update` that a message is, if it is one."""
    if not isinstance(message, str) or len(message) > UPDATE_CHARS_MAX or "session.update" not in message:
        return None
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and event.get("type") == "session.update" else None
