"""The front of the data path in the test's own process: real sockets on both sides, a desk that admits at once, engines that are
scripts, and behind the ordinary way an application that says what it was asked."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import uvicorn

from vllama.actors import Pending, Route, Ticket
from vllama.api.access import Keys
from vllama.api.fast.common import Common
from vllama.api.fast.front import Front
from vllama.api.fast.running import running
from vllama.api.links import Links
from vllama.api.listen import listen
from vllama.api.pace import Pace
from vllama.api.proxy import Edge, Proxy
from vllama.api.stored import Responses
from vllama.api.traffic import Traffic
from vllama.api.upstream import Upstreams
from vllama.config import VllamaConfig
from vllama.errors import ModelUnknown

BOUND_S = 60
FAST, ORDINARY = "/v1/chat/completions", "/v1/models"
# The headers that choose the way of a request that the fast one could take.
WAYS = {"fast": (), "ordinary": ("X-Vllama-Wait-S: 60",)}
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class OpenDesk:
    """Knows one model, `m`, whose engine is always awake; keeps the tickets that are out."""

    stopping = False

    def __init__(self, config: VllamaConfig, port: int) -> None:
        self.config = config
        self.catalog = self
        self.port = port
        self.out: list[Ticket] = []
        self.asked: list[str] = []
        self.unreachable = 0
        self.given_up = 0
        self.heal_to = 0  # where the next engine listens, once this one is reported
        self.wait = False  # the ask is not answered
        self.waiting: list[Pending] = []

    def kind_of(self, model: str) -> str:
        return "chat"

    def find(self, name: str) -> Route | None:
        return Route("m", "m") if name in ("m", "alias") else None

    def ask(self, model: str, request_id: str = "", priority: int | None = None) -> Pending | None:
        self.asked.append(request_id)
        pending = Pending(len(self.asked), model)
        if self.wait:
            self.waiting.append(pending)
        else:
            pending.admit(self.ticket())
        return pending

    def ticket(self) -> Ticket:
        ticket = Ticket(len(self.asked), "m", 1, self.port, "warm", 0.0, self.out.remove, self._unreachable)
        self.out.append(ticket)
        return ticket

    def _unreachable(self, _: Ticket) -> None:
        self.unreachable += 1
        self.port = self.heal_to or self.port

    def give_up(self, pending: Pending) -> None:
        self.given_up += 1

    async def answer(self, pending: Pending, wait_s: float | None = None) -> Ticket:
        ticket = pending.answered()
        assert ticket is not None
        return ticket

    def keep_alive(self, model: str, seconds: float) -> None:
        raise AssertionError("nobody said so")

    async def route(self, name: str) -> Route:
        if (route := self.find(name)) is None:
            raise ModelUnknown(f"no model {name}", model=name)
        return route

    async def ensure_instance_running(
        self, model: str, wait_s: float | None = None, request_id: str = "", priority: int | None = None
    ) -> Ticket:
        return self.ticket()


@dataclass
class Stand:
    """What a test has in its hands."""

    port: int
    desk: OpenDesk
    common: Common
    server: uvicorn.Server
    seen: list[dict] = field(default_factory=list)  # what the ordinary way was asked

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, data: bytes, *, apart: bool = False) -> bytes:
        """Send this, and read until the server closes; `apart`: one byte at a time. Bodies must be followed by a close."""
        reader, writer = await self.dial()
        try:
            for part in [data[at : at + 1] for at in range(len(data))] if apart else [data]:
                writer.write(part)
                await writer.drain()
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def until(self, there: Callable[[], bool]) -> None:
        while not there():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


async def take(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """One request, at an engine: head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", head)
    return head, await reader.readexactly(int(found[1]) if found else 0)


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One answer, at a client: status, headers, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        assert await reader.readline() == b"\r\n"
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(head[0].split()[1]), headers, body


def request(path: str = FAST, body: object = None, *headers: str, method: str = "POST") -> bytes:
    """A plain request with a JSON body."""
    data = json.dumps({"model": "m"} if body is None else body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def answering(answer: bytes, got: list[tuple[bytes, bytes]] | None = None) -> Script:
    """An engine that gives everybody this answer; `got` is what it was sent."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            taken = await take(reader)
            if got is not None:
                got.append(taken)
            writer.write(answer)

    return script


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@asynccontextmanager
async def stand(script: Script | None = None, **settings: object) -> AsyncIterator[Stand]:
    """A server, its one engine, and the bound on all of it."""

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await (script or answering(OK))(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async with asyncio.timeout(BOUND_S):
        engines = await asyncio.start_server(engine, "127.0.0.1", 0)
        desk = OpenDesk(VllamaConfig(**settings), engines.sockets[0].getsockname()[1])  # type: ignore[arg-type]
        links = Links()
        edge = Edge(desk, Upstreams(links), Responses(), Pace(), Traffic())
        common = Common(edge, links, Keys())
        seen: list[dict] = []
        config = uvicorn.Config(
            partial(_app, Proxy(edge, FAST), seen),
            http=partial(Front, common),
            log_config=None,
            lifespan="off",
            interface="asgi3",
        )  # type: ignore[arg-type]
        server = uvicorn.Server(config)
        sock = listen("127.0.0.1", 0)
        async with running(common), asyncio.TaskGroup() as group:
            serving = group.create_task(server._serve([sock]))
            while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
                await asyncio.sleep(0.001)
            try:
                yield Stand(sock.getsockname()[1], desk, common, server, seen)
            finally:
                server.should_exit = server.force_exit = True
                for connection in list(server.server_state.connections):
                    connection.transport.abort()
                engines.close()
                await serving


async def _app(proxy: Proxy, seen: list[dict], scope, receive, send) -> None:
    """Behind the ordinary way: the proxy of one path, and for all others something that tells what it was asked."""
    if scope["path"] == FAST:
        await proxy(scope, receive, send)
    else:
        await _tell(seen, scope, receive, send)


async def _tell(seen: list[dict], scope, receive, send) -> None:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    told = {
        "method": scope["method"],
        "target": scope["raw_path"].decode()
        + ("?" + scope["query_string"].decode() if scope["query_string"] else ""),
        "headers": headers,
        "body": body.decode("latin-1"),
    }
    seen.append(told)
    data = json.dumps(told).encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", str(len(data)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": data})


def play(test, script=None, **settings: object) -> None:
    async def main() -> None:
        async with stand(script, **settings) as place:
            await test(place)

    asyncio.run(main())


async def ask(place: Stand, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """The answer to one request on a connection of its own."""
    reader, writer = await place.dial()
    writer.write(data)
    try:
        return await answer_of(reader)
    finally:
        writer.close()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
