"""An answer of one JSON object a line, made while it is sent: work that ends when its reader hangs up or the server closes."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from vllama.errors import ShuttingDown, VllamaError

MEDIA_TYPE = "application/x-ndjson"
Say = Callable[[object], Awaitable[None]]
Produce = Callable[[Say], Awaitable[None]]


class Lines(Response):
    """`produce` says line after line. A failure before the first one is an answer of its own, a later one the last line."""

    def __init__(
        self,
        produce: Produce,
        closing: asyncio.Event,
        refused: Callable[[VllamaError], Response],
        broken: Callable[[VllamaError], object],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            headers={"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store"} | dict(headers or {})
        )
        self._produce = produce
        self._closing = closing
        self._refused = refused
        self._broken = broken
        self._send: Send
        self._started = False
        self._failure: VllamaError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        gone = False
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._work())
            hung_up = group.create_task(_hang_up(receive))
            closes = group.create_task(self._closing.wait())
            await asyncio.wait((work, hung_up, closes), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                gone = hung_up.done()
                self._failure = ShuttingDown("vllama is shutting down; ask again later", retry_after_s=5)
            for task in (work, hung_up, closes):
                task.cancel()
        if gone:
            return
        if self._failure is not None and not self._started:
            await self._refused(self._failure)(scope, receive, send)
            return
        if self._failure is not None:
            await self.say(self._broken(self._failure))
        await self._begin()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def say(self, line: object) -> None:
        """One line is out."""
        await self._begin()
        body = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _work(self) -> None:
        try:
            await self._produce(self.say)
        except VllamaError as error:
            self._failure = error

    async def _begin(self) -> None:
        if not self._started:
            self._started = True
            headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
