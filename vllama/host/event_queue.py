"""What happened by itself on a host, numbered, kept for a while, waited for by long polls."""

import asyncio
from collections import deque

from vllama.host.host import HostEvent

EVENTS_MAX = 4096


class EventQueue:
    """The latest events, oldest first. `append` never blocks and never fails; only its loop touches it."""

    def __init__(self) -> None:
        self._events: deque[HostEvent] = deque(maxlen=EVENTS_MAX)
        self._seq = 0
        self._news = asyncio.Event()
        self._closed = False

    def append(
        self,
        kind: str,
        launch_id: str = "",
        code: int | None = None,
        why: str = "",
        log_tail: str = "",
        detail: str = "",
    ) -> None:
        self._seq += 1
        self._events.append(HostEvent(self._seq, kind, launch_id, code, why, log_tail, detail))
        self._wake()

    def close(self) -> None:
        """Every waiting poll is answered now; later ones at once."""
        self._closed = True
        self._wake()

    async def after(self, seq: int, wait_s: float) -> tuple[HostEvent, ...]:
        """The events past `seq` as soon as there is one, () when `wait_s` has passed."""
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            if self._seq > seq:
                return tuple(event for event in self._events if event.seq > seq)
            left = deadline - asyncio.get_running_loop().time()
            if self._closed or left <= 0:
                return ()
            try:
                async with asyncio.timeout(left):
                    await self._news.wait()
            except TimeoutError:
                return ()

    def _wake(self) -> None:
        """Whoever waits now is woken; who waits later waits for the next one."""
        self._news.set()
        if not self._closed:
            self._news = asyncio.Event()
