"""The engines' own figures: fetched when somebody asks, from those that are awake, all at once and within a bound.

A scrape is no use of an engine (actors/glance.py): it holds no ticket, so it moves no `last_used`, keeps nobody awake and is
waited for by no drain. An engine that leaves `awake` while it is asked has its connection cut before anything else is sent to
it, and is left out. A sleeper is never asked.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import httptools

from vllama.actors import Glance, System, glances

AT_ONCE_MAX = 16
PAGE_BYTES_MAX = 2**23
READ_BYTES = 2**16

_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain;version=0.0.4\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Page:
    """What came of asking one engine: `text` is None where nothing did, in time and whole."""

    model: str
    text: str | None
    seconds: float


class Scraper:
    """One round at a time: who comes while one is under way gets the next, together with all who came meanwhile."""

    def __init__(self, system: System, timeout_s: float) -> None:
        self._system = system
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._begun = 0
        self._pages: Sequence[Page] = ()

    async def scrape(self) -> Sequence[Page]:
        """The pages of the engines that were awake from the first byte to the last, and the failures of the others that
        still are."""
        came = self._begun
        async with self._turn:
            if self._begun > came:
                return self._pages
            self._begun += 1
            gate = asyncio.Semaphore(AT_ONCE_MAX)
            until = asyncio.get_running_loop().time() + self._timeout_s
            with glances(self._system) as looked_at:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(_page(glance, gate, until)) for glance in looked_at]
                self._pages = [
                    task.result() for glance, task in zip(looked_at, tasks, strict=True) if not glance.over
                ]
            return self._pages


async def _page(glance: Glance, gate: asyncio.Semaphore, until: float) -> Page:
    begun = perf_counter()
    text = None
    try:
        async with asyncio.timeout_at(until), gate:
            text = await _fetched(glance)
    except (TimeoutError, OSError, httptools.HttpParserError):
        text = None
    return Page(glance.model, text, perf_counter() - begun)


async def _fetched(glance: Glance) -> str | None:
    reader, writer = await asyncio.open_connection(glance.host, glance.port)
    glance.on_over = writer.transport.abort
    try:
        if glance.over:  # it was awake when the connection was asked for; nothing has been sent
            return None
        writer.write(_REQUEST)
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        while not answer.whole and (data := await reader.read(READ_BYTES)):
            parser.feed_data(data)
            if answer.size > PAGE_BYTES_MAX:
                return None
        if not answer.whole and not answer.sized and answer.begun and not glance.over:
            answer.whole = True  # ended by the end of the connection
        if not answer.whole or parser.get_status_code() != 200:
            return None
        return b"".join(answer.parts).decode("utf-8", "replace")
    finally:
        glance.on_over = None
        writer.transport.abort()


class _Answer:
    """What the parser tells."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.begun = self.sized = self.whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        chunked = name.lower() == b"transfer-encoding" and value.lower() == b"chunked"
        self.sized = self.sized or chunked or name.lower() == b"content-length"

    def on_headers_complete(self) -> None:
        self.begun = True

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)
        self.size += len(body)

    def on_message_complete(self) -> None:
        self.whole = True
