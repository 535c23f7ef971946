"""GET /debug/events: the journal's tail as server-sent events. No second event system: each event is one record.

`id:` is the record's sequence number, `event:` its kind, `data:` the record as JSON. A reader resumes with Last-Event-ID or
`?since=N`; what it can no longer have is announced as `event: gap` with the first and the last number lost. With `words=1` each
record also says in words what happened.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from vllama.actors import Gap, Journal, Record, Subscription, System, record_json, told
from vllama.errors import BadRequest, cited

HEARTBEAT_S = 15.0


async def endpoint(request: Request) -> Response:
    """`?since= &model= &kind= &follow=0 &words=1`; `model` and `kind` may be repeated and then mean any of them."""
    query = request.query_params
    since = _number("since", query["since"]) if "since" in query else None
    if (resumed := request.headers.get("last-event-id")) is not None:
        since = _number("Last-Event-ID", resumed)
    follow = query.get("follow", "1")
    if follow not in ("0", "1"):
        raise BadRequest(f"follow must be 0 or 1, not {cited(follow)!r}.")
    words = query.get("words", "0")
    if words not in ("0", "1"):
        raise BadRequest(f"words must be 0 or 1, not {cited(words)!r}.")
    return EventStream(
        request.app.state.system.journal,
        request.app.state.closing,
        since,
        models=frozenset(query.getlist("model")),
        kinds=frozenset(query.getlist("kind")),
        follow=follow == "1",
        words=words == "1",
    )


async def journal(request: Request) -> Response:
    """GET /debug/journal: everything held, as JSON lines that can be folded: a snapshot, the records, the live states."""
    system: System = request.app.state.system
    lines = "".join(json.dumps(line) + "\n" for line in system.saved_journal())
    return Response(lines, media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})


def _number(name: str, given: str) -> int:
    if not (given.isascii() and given.isdecimal() and len(given) < 20):
        raise BadRequest(f"{name} must be the sequence number of an event, not {cited(given)!r}.")
    return int(given)


class EventStream(Response):
    """One reader of the journal. It owns its subscription from the head of the answer to the hang-up."""

    def __init__(
        self,
        journal: Journal,
        closing: asyncio.Event,
        since: int | None,
        *,
        models: frozenset[str],
        kinds: frozenset[str],
        follow: bool,
        words: bool,
    ) -> None:
        super().__init__(media_type="text/event-stream")
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"
        del self.headers["Content-Length"]
        self._journal = journal
        self._closing = closing
        self._since = since
        self._models = models
        self._kinds = kinds
        self._follow = follow
        self._json = told if words else record_json

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # nothing follows, for as long as the reader stays
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        # Subscribed before the head is out: whoever has the head misses nothing that follows.
        actor = next(iter(self._models)) if len(self._models) == 1 else None
        subscription = self._journal.subscribe(self._since, actor=actor, kinds=self._kinds or None)
        gone = asyncio.Event()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b": vllama\n\n", "more_body": True})
            async with asyncio.TaskGroup() as group:
                ends = [
                    group.create_task(self._pump(subscription, send)),
                    group.create_task(_hung_up(receive, gone)),
                    group.create_task(self._closed()),
                ]
                beat = group.create_task(_beat(send))
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                for task in (*ends, beat):
                    task.cancel()
            if not gone.is_set():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            subscription.close()

    async def _pump(self, subscription: Subscription, send: Send) -> None:
        async for item in self._items(subscription):
            await send({"type": "http.response.body", "body": _event(item, self._json), "more_body": True})

    async def _items(self, subscription: Subscription) -> AsyncIterator[Record | Gap]:
        if not self._follow:
            for item in subscription.pending():
                if self._wanted(item):
                    yield item
            return
        async for item in subscription:
            if self._wanted(item):
                yield item

    def _wanted(self, item: Record | Gap) -> bool:
        return isinstance(item, Gap) or not self._models or item.actor in self._models

    async def _closed(self) -> None:
        await self._closing.wait()


async def _hung_up(receive: Receive, gone: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


async def _beat(send: Send) -> None:
    """A comment now and then: proxies and clients see that the stream lives, and a dead client is noticed."""
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})


def _event(item: Record | Gap, as_json: Callable[[Record], dict[str, Any]]) -> bytes:
    if isinstance(item, Gap):
        data = json.dumps({"first": item.first, "last": item.last})
        return f"event: gap\ndata: {data}\n\n".encode()
    fields = as_json(item)
    return f"id: {item.seq}\nevent: {type(item.event).__name__}\ndata: {json.dumps(fields)}\n\n".encode()
