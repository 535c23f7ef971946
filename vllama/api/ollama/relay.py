"""A request in Ollama's words as one exchange of the data path: the body goes in translated, what comes out is translated back.

Ticket, wait, abort, hang-up and count are the exchange's; here are only words. The engine is always asked for a stream, so that
one fold makes both kinds of answer and the time of the first token is known.
"""

import json
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from vllama.api.body import header
from vllama.api.lines import MEDIA_TYPE
from vllama.api.ollama.clock import Clock
from vllama.api.ollama.errors import error_line, text_of, worded
from vllama.api.proxy import Edge, Exchange

_TOLD = frozenset((b"x-request-id", b"x-vllama-state", b"x-vllama-wait-ms", b"retry-after"))
_NOT_INWARD = frozenset(
    (b"content-type", b"content-length", b"content-encoding", b"accept", b"accept-encoding")
)


class Words(Protocol):
    """Makes the answer out of what the engine says with status 200."""

    def take(self, chunk: bytes) -> list[dict[str, Any]]:
        """The lines that are ready; for an answer in one piece none."""

    def end(self) -> list[dict[str, Any]]:
        """The last lines; for an answer in one piece the only one."""

    def failure(self) -> tuple[int, str] | None:
        """Why there is no end to it: a status and the words."""


class Relay(Response):
    """`path` is vLLM's, `route` the one that was asked for, `named` the model as the client named it."""

    def __init__(
        self, edge: Edge, route: str, path: str, body: dict[str, Any], words: Words, clock: Clock, *,
        named: str, stream: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self._edge, self._route, self._path = edge, route, path
        self._inward = json.dumps(body).encode()
        self._words, self._clock = words, clock
        self._named, self._stream = named, stream
        self._send: Send
        self._status = 0
        self._told: list[tuple[bytes, bytes]] = []
        self._error = b""  # the body of an answer that is not 200
        self._begun = self._over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        headers = [pair for pair in scope["headers"] if pair[0] not in _NOT_INWARD]
        headers.append((b"content-type", b"application/json"))
        inner = {**scope, "method": "POST", "query_string": b"", "headers": headers}
        given = False

        async def ours() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": self._inward, "more_body": False}

        exchange = Exchange(self._edge, self._path, inner, ours, self._take)
        exchange.route = self._route
        await exchange.run()
        if self._status and not self._over:  # it tore: whoever still listens is told
            await self._fail(502, "the engine broke the connection while it answered; send the request again")

    async def _take(self, message: Message) -> None:
        """What the exchange would have sent to the client."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._told = [pair for pair in message["headers"] if pair[0] in _TOLD]
            self._clock.load_s = float(header(self._told, b"x-vllama-wait-ms") or 0) / 1000
            if self._stream and self._status == 200:
                await self._begin(200, MEDIA_TYPE)
            return
        chunk, more = message.get("body", b""), message.get("more_body", False)
        if self._status != 200:
            self._error += chunk
            if not more:
                await self._refused()
            return
        lines = self._words.take(chunk)
        if lines:
            await self._say(lines)
        ends = self._words.failure() is None and not more and not self._over
        lines = self._words.end() if ends else []
        if (failure := self._words.failure()) is not None:
            await self._fail(*failure)
        elif ends:
            await self._say(lines, last=True)

    async def _refused(self) -> None:
        try:
            message, code = text_of(json.loads(self._error))
        except ValueError:
            message, code = self._error.decode(errors="replace") or f"status {self._status}", None
        await self._fail(*worded(self._status, code, message, self._named, self._route))

    async def _fail(self, status: int, message: str) -> None:
        """A status where none is out yet, else a last line."""
        if not self._over:
            await self._say([error_line(message)], last=True, status=status)

    async def _say(self, lines: list[dict[str, Any]], *, last: bool = False, status: int = 200) -> None:
        if self._over:
            return
        body = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
        if not self._begun:
            body = body.rstrip(b"\n")
            await self._begin(status, "application/json; charset=utf-8", size=len(body))
        self._over = last
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    async def _begin(self, status: int, kind: str, size: int | None = None) -> None:
        self._begun = True
        headers = [*self._told, (b"content-type", kind.encode())]
        if size is not None:
            headers.append((b"content-length", b"%d" % size))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
