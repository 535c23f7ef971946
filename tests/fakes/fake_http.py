"""A small HTTP/1.1 server for the fake engine: stdlib, starts at once, knows the moment a client goes away."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

HEAD_BYTES_MAX = 64 * 1024


class HttpError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Exchange:
    """One request and the way to answer it: `reply` once, or `begin` and then `send` chunks."""

    def __init__(
        self, connection: "Connection", method: str, target: str, headers: dict[str, str], body: bytes
    ) -> None:
        url = urlsplit(target)
        self.connection = connection
        self.transport = connection.transport
        self.target, self.headers = target, headers
        self.method, self.path = method, url.path
        self.query = parse_qs(url.query, keep_blank_values=True)
        self.body = body
        self.status = 0
        self._chunked = False

    def json(self) -> dict:
        try:
            value = json.loads(self.body)
        except ValueError as error:
            raise HttpError(400, f"JSON decode error: {error}") from error
        if not isinstance(value, dict):
            raise HttpError(400, "the body must be a JSON object")
        return value

    def reply(self, status: int, value: object = None) -> None:
        data = b"" if value is None else json.dumps(value).encode()
        self._head(status, f"content-type: application/json\r\ncontent-length: {len(data)}\r\n")
        self.transport.write(data)

    def text(self, value: str) -> None:
        data = value.encode()
        self._head(200, f"content-type: text/plain\r\ncontent-length: {len(data)}\r\n")
        self.transport.write(data)

    def begin(self) -> None:
        self._chunked = True
        self._head(200, "content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n")

    def send(self, value: object) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        data = f"data: {text}\n\n".encode()
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        if self._chunked:
            self.transport.write(b"0\r\n\r\n")

    def _head(self, status: int, headers: str) -> None:
        self.status = status
        self.transport.write(f"HTTP/1.1 {status} X\r\nserver: fake\r\n{headers}\r\n".encode())


Handler = Callable[[Exchange], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client. Its request is cancelled the moment it hangs up; requests on one connection go one by one."""

    def __init__(self, handler: Handler, tasks: asyncio.TaskGroup) -> None:
        self._handler, self._tasks = handler, tasks
        self.upgraded: asyncio.StreamReader | None = None  # who reads from here on, when it is HTTP no more
        self._buffer = b""
        self._parts: list[bytes] = []
        self._wanted = 0
        self._running: asyncio.Task | None = None

    def connection_made(self, transport) -> None:
        self.transport = transport

    def connection_lost(self, exc) -> None:
        if self.upgraded is not None:
            self.upgraded.feed_eof()
        if self._running is not None:
            self._running.cancel()

    def data_received(self, data: bytes) -> None:
        if self.upgraded is not None:
            self.upgraded.feed_data(data)
            return
        self._parts.append(data)
        if self._wanted > sum(map(len, self._parts)):
            return  # a large body is not looked at for each part of it
        self._buffer += b"".join(self._parts)
        self._parts.clear()
        self._next()

    def _next(self) -> None:
        if self._running is not None or (request := self._take()) is None:
            return
        self._running = self._tasks.create_task(self._handle(Exchange(self, *request)))

    async def _handle(self, exchange: Exchange) -> None:
        try:
            await self._handler(exchange)
        except asyncio.CancelledError:
            if not self.transport.is_closing():
                raise
        finally:
            self._running = None
        self._next()

    def _take(self) -> tuple[str, str, dict[str, str], bytes] | None:
        """The next whole request in the buffer: method, target, body."""
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return None
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        if "chunked" in headers.get("transfer-encoding", ""):
            taken = _unchunk(rest)
            if taken is None:
                return None
            body, self._buffer = taken
        else:
            length = int(headers.get("content-length", "0"))
            if len(rest) < length:
                self._wanted = length - len(rest)
                return None
            self._wanted = 0
            body, self._buffer = rest[:length], rest[length:]
        return method, target, headers, body


def _unchunk(data: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while True:
        line, separator, rest = data.partition(b"\r\n")
        if not separator:
            return None
        size = int(line.split(b";")[0], 16)
        if len(rest) < size + 2:
            return None
        if size == 0:
            return body, rest[2:]
        body, data = body + rest[:size], rest[size + 2 :]
