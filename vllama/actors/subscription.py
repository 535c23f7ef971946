"""A reader of the journal: what it wants of what is held, then what comes, with a gap where something was lost to it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable

from vllama.actors.record import Filter, Gap, Record

BACKLOG_MAX = 1000  # records that wait for one reader; past that it gets a gap


class Subscription:
    """Iterate for records and gaps; `forget` is called with it when it is closed."""

    def __init__(
        self,
        wanted: Filter,
        held: Iterable[Record],
        gap: Gap | None,
        forget: Callable[["Subscription"], None],
    ) -> None:
        self._forget = forget
        self._filter = wanted
        self._items: deque[Record | Gap] = deque([gap] if gap else [])
        self._items.extend(held)
        self._backlog_max = len(self._items) + BACKLOG_MAX
        self._wake = asyncio.Event()
        self._dropped: Gap | None = None
        self._closed = False

    def push(self, record: Record) -> None:
        """From the journal: never blocks a turn; a reader that is too slow loses records and is told which."""
        if not self._filter.wants(record):
            return
        if len(self._items) >= self._backlog_max:
            first = self._dropped.first if self._dropped else record.seq
            self._dropped = Gap(first, record.seq)
        else:
            if self._dropped:
                self._items.append(self._dropped)
                self._dropped = None
            self._items.append(record)
        self._wake.set()

    def pending(self) -> tuple[Record | Gap, ...]:
        """What can be read without waiting."""
        taken = (*self._items, *([self._dropped] if self._dropped else []))
        self._items.clear()
        self._dropped = None
        return taken

    async def __aiter__(self) -> AsyncIterator[Record | Gap]:
        while not self._closed:
            while self._items:
                yield self._items.popleft()
            if self._dropped:
                gap, self._dropped = self._dropped, None
                yield gap
                continue
            self._wake.clear()
            await self._wake.wait()

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        self._forget(self)
