"""A request's right to an awake engine, and the wait for it."""

import asyncio
import time
from collections.abc import Callable

from vllama.actors.core.messages import How
from vllama.errors import VllamaError


class Ticket:
    """Held by the response object, released by it at the last byte or at the client's disconnect."""

    __slots__ = ("_release", "_report", "ask", "host", "model", "on_abort", "port", "run", "state", "wait_ms")

    def __init__(
        self,
        ask: int,
        model: str,
        run: int,
        port: int,
        state: How,
        wait_ms: float,
        release: Callable[["Ticket"], None],
        report: Callable[["Ticket"], None],
    ) -> None:
        self.ask = ask
        self.run = run
        self.model = model
        self.host = "127.0.0.1"
        self.port = port
        self.state = state
        self.wait_ms = wait_ms
        self.on_abort: Callable[[], None] | None = None
        self._release: Callable[[Ticket], None] | None = release
        self._report = report

    def unreachable(self) -> None:
        """Nobody listens at this engine any more: who asks again gets the next one."""
        self._report(self)

    def release(self) -> None:
        """Give the right back; a second time does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release(self)


class Pending:
    """An ask that is not yet answered. A warm one is answered before `tell` returns, and no future is made."""

    __slots__ = ("_error", "_future", "_then", "_ticket", "ask", "begun", "model")

    def __init__(self, ask: int, model: str) -> None:
        self.ask = ask
        self.model = model
        self.begun = time.perf_counter()
        self._ticket: Ticket | None = None
        self._error: VllamaError | None = None
        self._future: asyncio.Future[Ticket] | None = None
        self._then: Callable[[], None] | None = None

    def waited_ms(self) -> float:
        return (time.perf_counter() - self.begun) * 1000

    def admit(self, ticket: Ticket) -> None:
        self._ticket = ticket
        if self._future is not None and not self._future.done():
            self._future.set_result(ticket)
        if self._then is not None:
            asyncio.get_running_loop().call_soon(self._then)

    def refuse(self, error: VllamaError) -> None:
        self._error = error
        if self._future is not None and not self._future.done():
            self._future.set_exception(error)
        if self._then is not None:
            asyncio.get_running_loop().call_soon(self._then)

    def answered(self) -> Ticket | None:
        """The ticket, if it is there; raises the refusal, if that is."""
        if self._error is not None:
            raise self._error
        return self._ticket

    def then(self, call: Callable[[], None]) -> None:
        """Call this once it is answered, never within the turn that answers. For who waits without a task."""
        self._then = call

    async def wait(self, wait_s: float | None) -> Ticket:
        """Raises the refusal, TimeoutError after `wait_s`. If the caller is cancelled, a ticket that crossed is released."""
        self._future = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.wait_for(self._future, wait_s)
        except (TimeoutError, asyncio.CancelledError):
            if self._future.done() and not self._future.cancelled():
                self._future.exception()  # looked at: a refusal that crossed is not an unretrieved error
            if self._ticket is not None:
                self._ticket.release()
            raise
