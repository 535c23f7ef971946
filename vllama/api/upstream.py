"""Requests to engines for who has a task: on the connections of `Links`, an answer read at the pace of who asked."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllama.api.engine_answer import Answer, LinkBroken
from vllama.api.links import Links

if TYPE_CHECKING:
    from vllama.api.link import Link


class Unreachable(LinkBroken):
    """Nobody listens there: nothing was sent."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to an engine. `headers` has the body's length; `content` gives the body, as often as it is called."""

    method: str
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    content: Callable[[], bytes | AsyncIterator[bytes]]


class Reply:
    """An engine's answer. What is not asked for yet is not read: no more than one piece waits here."""

    framed = False

    def __init__(self) -> None:
        self.answer: Answer
        self.length: int | None = None  # of its body, if it says so
        self.link: Link | None = None  # while the answer goes on
        self._pieces: deque[bytes] = deque()
        self._begun = False
        self._error: LinkBroken | None = None
        self._news = asyncio.Event()

    # --- as Link's Asker

    def begin(self, answer: Answer, length: int | None) -> None:
        self.answer, self.length, self._begun = answer, length, True
        self._news.set()

    def frames(self, data: bytes, size: int, *, last: bool) -> None:
        raise AssertionError("nobody asked for frames")

    def piece(self, data: bytes) -> None:
        self._pieces.append(data)
        self._news.set()

    def flush(self) -> None:
        if self._pieces and self.link is not None:
            self.link.pause()

    def done(self) -> None:
        self.link = None
        self._news.set()

    def broken(self, error: LinkBroken) -> None:
        self.link, self._error = None, error
        self._news.set()

    # --- for who asked

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As the engine sent them."""
        length = [] if self.length is None else [(b"content-length", b"%d" % self.length)]
        return [*self.answer.headers, *length]

    async def begun(self) -> None:
        """Returns when the head is there. Raises LinkBroken."""
        while not self._begun:
            await self._wait()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body. Raises LinkBroken."""
        while True:
            while self._pieces:
                yield self._pieces.popleft()
            if self.link is None and self._error is None:
                return
            await self._wait()

    def leave(self) -> None:
        """The connection is closed, unless all has come."""
        if (link := self.link) is not None:
            self.link = None
            link.drop()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._news.clear()
        if self.link is not None:
            self.link.resume()
        await self._news.wait()


class Upstreams:
    """Sends requests to engines. `stream` closes its connection at once when it is left before the answer's end."""

    def __init__(self, links: Links) -> None:
        self._links = links

    @asynccontextmanager
    async def stream(self, host: str, port: int, ask: Ask) -> AsyncIterator[Reply]:
        """The engine's answer, its body still to be read. Raises LinkBroken."""
        reply = Reply()
        try:
            await self._send((host, port), ask, reply)
            await reply.begun()
            yield reply
        finally:
            reply.leave()

    async def _send(self, address: tuple[str, int], ask: Ask, reply: Reply) -> None:
        """The whole request. A kept connection that turns out to be closed has seen nothing of it: the next one is tried."""
        lines = [b"%b %b HTTP/1.1" % (ask.method.encode(), ask.target), b"host: %b:%d" % _named(address)]
        lines += [b"%b: %b" % header for header in ask.headers]
        content = ask.content()
        data = b"\r\n".join(lines) + b"\r\n\r\n" + (content if isinstance(content, bytes) else b"")
        more, bodyless = not isinstance(content, bytes), ask.method == "HEAD"
        link = self._links.kept(address)
        while link is not None and not link.ask(data, reply, bodyless=bodyless, more=more):
            link = self._links.kept(address)
        if link is None:
            try:
                link = await self._links.connect(address)
            except OSError as error:
                raise Unreachable(str(error) or type(error).__name__) from error
            if not link.ask(data, reply, bodyless=bodyless, more=more):
                raise LinkBroken("it closed the connection")
        reply.link = link
        if not isinstance(content, bytes):
            async for block in content:
                if link.closed:  # it has answered before it had all of it, or is gone
                    break
                await link.write(block)
            link.wrote()


def _named(address: tuple[str, int]) -> tuple[bytes, int]:
    host, port = address
    return host.encode(), port
