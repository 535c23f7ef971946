"""Connections to engines: one small keep-alive pool per engine, nothing of the environment, no timeout on an answer."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

# An engine closes an idle connection after 5 s; we let go first, so that a request never meets a closing one.
KEEPALIVE_S = 3.0
KEEPALIVE_MAX = 32
ENGINES_MAX = 32
CONNECT_TIMEOUT_S = 10.0

_TIMEOUT = {"connect": CONNECT_TIMEOUT_S, "read": None, "write": None, "pool": None}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to an engine. `headers` has the body's length; `content` gives the body, as often as it is called."""

    method: str
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    content: Callable[[], bytes | AsyncIterator[bytes]]


class _Trace:
    """Whether a new connection was made, and whether the engine can have seen the whole request."""

    def __init__(self) -> None:
        self.connected = False
        self.sent = False

    async def __call__(self, name: str, info: dict[str, Any]) -> None:
        if name == "connection.connect_tcp.started":
            self.connected = True
        elif name == "http11.send_request_body.complete":
            self.sent = True

    @property
    def stale(self) -> bool:
        """A kept connection was closed by the engine before it took the request, so nothing can have come of it."""
        return not self.connected and not self.sent


class _Engine:
    """One engine's pool. The transport alone, without httpx's client: no cookies, no redirects, no decompression."""

    def __init__(self) -> None:
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=KEEPALIVE_MAX, keepalive_expiry=KEEPALIVE_S
        )
        self.transport = httpx.AsyncHTTPTransport(verify=False, trust_env=False, limits=limits)
        self.in_flight = 0


class Upstreams:
    """Sends requests to engines. `stream` closes its connection at once when it is left before the answer's end."""

    def __init__(self) -> None:
        self._engines: OrderedDict[tuple[str, int], _Engine] = OrderedDict()

    @asynccontextmanager
    async def stream(self, host: str, port: int, ask: Ask) -> AsyncIterator[httpx.Response]:
        """The engine's answer, its body still to be read. Raises httpx.TransportError."""
        engine = await self._engine(host, port)
        engine.in_flight += 1
        try:
            response = await _send(engine, f"http://{host}:{port}/", ask)
            try:
                yield response
            finally:
                await response.aclose()
        finally:
            engine.in_flight -= 1

    async def aclose(self) -> None:
        """Close every connection."""
        while self._engines:
            _, engine = self._engines.popitem()
            await engine.transport.aclose()

    async def _engine(self, host: str, port: int) -> _Engine:
        """The pool of this engine; of those out of use only the latest are kept."""
        key = (host, port)
        engine = self._engines.get(key)
        if engine is None:
            engine = self._engines[key] = _Engine()
        self._engines.move_to_end(key)
        while len(self._engines) > ENGINES_MAX:
            oldest = next(iter(self._engines))
            if self._engines[oldest].in_flight or oldest == key:
                break
            await self._engines.pop(oldest).transport.aclose()
        return engine


async def _send(engine: _Engine, url: str, ask: Ask) -> httpx.Response:
    """The head of the answer. A kept connection that turns out to be closed costs one silent second try."""
    for last in (False, True):
        trace = _Trace()
        extensions = {"target": ask.target, "timeout": _TIMEOUT, "trace": trace}
        request = httpx.Request(
            ask.method, url, headers=list(ask.headers), content=ask.content(), extensions=extensions
        )
        try:
            return await engine.transport.handle_async_request(request)
        except httpx.TransportError:
            if last or not trace.stale:
                raise
    raise AssertionError("unreachable: the second try returns or raises")
