"""A client's connection. Every request's head is read here, strictly, and then goes one of two ways: the fast path takes what it
understands whole, and uvicorn's own protocol gets all else, from its first byte on.

Requests of one connection are answered one by one; what comes meanwhile is held, and a client that sends too much is not read.
"""

import asyncio
import logging
import os
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from vllama.api.answers import plain_answer
from vllama.api.fast.chunks import Chunks
from vllama.api.fast.common import Common
from vllama.api.fast.head import Head, Refused, partial_fault
from vllama.api.fast.ordinary import Ordinary
from vllama.api.fast.passage import Passage
from vllama.api.fast.peek import model_in, renamed
from vllama.api.fast.wording import CONTINUE, plain_head

BODY_BYTES_MAX = 2**18  # a larger body is read, and kept, by the ordinary way
HELD_BYTES_MAX = 2**16
NEVER = float("inf")

_HEAD, _BODY, _FAST, _ORDINARY, _HANDED_OVER, _CLOSED = range(6)

log = logging.getLogger(__name__)


class Front:
    """One connection, an asyncio.Protocol in all but the base, which would keep it from being compiled; uvicorn makes it by
    `http=`."""

    def __init__(
        self,
        common: Common,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.deadline = NEVER
        self._common = common
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._settings = common.desk.config
        self._state = _HEAD
        self._held = b""  # what has come and is not looked at yet
        self._parts: list[bytes] = []  # a request whose body is not whole yet
        self._missing = 0
        self._head: Head | None = None
        self._passage: Passage | None = None
        self._ordinary: Ordinary | None = None
        self._left: int | Chunks = 0  # of the body that the ordinary way reads
        self._answered = True  # the ordinary way has answered
        self._blocked = False  # something waits in the transport
        self._held_up = False  # the client is not read
        self._ending = False  # the server ends

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._fd = transport.get_extra_info("socket").fileno()
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        self._common.connections.add(self)
        self.deadline = self._loop.time() + self._settings.head_timeout_s

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == _HEAD:
            self._request(self._held + data if self._held else data)
        elif state == _BODY:
            self._more(data)
        elif state == _ORDINARY:
            self._pass(data)
        elif state == _FAST:
            self._hold(data)
        elif state == _HANDED_OVER and self._ordinary is not None:
            self._ordinary.data_received(data)

    def eof_received(self) -> None:
        """The client says no more, and so wants no answer: the transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _CLOSED
        self._watched_no_more()
        self._forget()
        if self._passage is not None:
            self._passage.gone()
            self._passage = None
        if self._ordinary is not None:
            self._ordinary.connection_lost(exc)
        self._parts.clear()
        self._held = b""

    def pause_writing(self) -> None:
        self._blocked = True
        if self._ordinary is not None:
            self._ordinary.pause_writing()

    def resume_writing(self) -> None:
        self._blocked = False
        if self._ordinary is not None:
            self._ordinary.resume_writing()
        if self._passage is not None:
            self._passage.resume()

    # --- uvicorn's server

    def shutdown(self) -> None:
        """The server ends: close when what runs is answered."""
        self._ending = True
        if self._state in (_HEAD, _BODY):
            self.transport.close()
        elif self._state in (_ORDINARY, _HANDED_OVER) and self._ordinary is not None:
            self._ordinary.shutdown()

    def overdue(self) -> None:
        """The client has not said in time what it had begun to say; a connection that is only idle is closed without a word."""
        begun = self._state == _BODY or bool(self._held)
        self.deadline = NEVER
        if self._state == _ORDINARY:
            if self._ordinary is not None and self._ordinary.flow.read_paused:
                self._wait(self._settings.body_timeout_s)  # it is us who do not read
            else:
                self.transport.abort()
        elif begun:
            self._refuse(Refused(408, "The request did not come in time.", "request_timeout"))
        else:
            self.transport.close()

    # --- requests

    def _request(self, data: bytes) -> None:
        """Bytes that begin with a request's head, maybe not whole."""
        end = data.find(b"\r\n\r\n")
        size_max = self._settings.head_bytes_max
        if end < 0 or end > size_max:
            if not self._held:
                self._wait(self._settings.head_timeout_s)
            self._held = data
            if len(data) > size_max:
                self._refuse(
                    Refused(431, f"The request's head is longer than {size_max} bytes.", "head_too_large")
                )
            elif (fault := partial_fault(data)) is not None:
                self._refuse(fault)
            return
        self._held = b""
        self.deadline = NEVER
        try:
            head, length = self._common.heads.read(data[:end])
        except Refused as refused:
            self._refuse(refused)
            return
        whole = end + 4 + (length or 0)
        if length is None or length > BODY_BYTES_MAX or self._common.path_of(head) is None:
            self._hand_over(head, data, end + 4, length)
        elif len(data) >= whole:
            if len(data) > whole:
                self._hold(data[whole:])
                data = data[:whole]
            self._take(head, data, end + 4)
        else:
            self._state = _BODY
            self._head, self._parts, self._missing = head, [data], whole - len(data)
            self._wait(self._settings.body_timeout_s)
            if head.expects:
                self.send(CONTINUE)

    def _more(self, data: bytes) -> None:
        """More of a body that is kept until it is whole."""
        if len(data) < self._missing:
            self._missing -= len(data)
            self._parts.append(data)
            self._wait(self._settings.body_timeout_s)
            return
        if len(data) > self._missing:
            self._hold(data[self._missing :])
            data = data[: self._missing]
        whole = b"".join([*self._parts, data])
        self._parts = []
        self.deadline = NEVER
        head, self._head = self._head, None
        assert head is not None
        self._take(head, whole, whole.index(b"\r\n\r\n") + 4)

    def _take(self, head: Head, data: bytes, at: int) -> None:
        """A whole request that the fast path may take, if its body is as plain as its head."""
        common = self._common
        body = data[at:]
        if (
            (path := common.path_of(head))
            and (name := model_in(body))
            and (route := common.route_of(path, name))
        ):
            named = body if route.served == name else renamed(body, route.served)
            if named is not None:
                self._state = _FAST
                passage = self._passage = Passage(common, self, head, path, route, named)
                if passage.start():
                    return
                self._passage = None
        self._hand_over(head, data, at, len(body))

    def _hand_over(self, head: Head, data: bytes, at: int, length: int | None) -> None:
        """The ordinary way, from the request's first byte on."""
        if head.method == b"CONNECT":
            self._refuse(Refused(405, "This server is no proxy of that kind.", "method_not_allowed"))
            return
        if self._ordinary is None:
            self._ordinary = Ordinary(
                self._done, self._config, self._server_state, self._app_state, self._loop
            )
            self._ordinary.connection_made(self.transport)
            self._server_state.connections.discard(self._ordinary)
            if self._blocked:
                self._ordinary.pause_writing()
        if head.upgrades and head.upgrade == b"websocket" and head.method == b"GET":
            self._websocket(head, data, length)
            return
        self._state = _ORDINARY
        self._answered = False
        self._left = Chunks() if head.chunked else length or 0
        self._ordinary.data_received(data[:at] if not head.upgrade else head.without_upgrade(data[:at]))
        self._pass(data[at:])

    def _websocket(self, head: Head, data: bytes, length: int | None) -> None:
        """From here on it is no HTTP, and nobody here reads it."""
        if length or head.chunked:
            self._refuse(Refused(400, "A request for a websocket has no body."))
            return
        assert self._ordinary is not None
        self._state = _HANDED_OVER
        self._ordinary.data_received(data)
        self._forget()

    def _pass(self, data: bytes) -> None:
        """What belongs to this request's body goes to the ordinary way, what is behind it is held."""
        left = self._left
        if data and not self._complete():
            assert self._ordinary is not None
            if isinstance(left, Chunks):
                try:
                    passed, used = left.feed(data)
                except Refused as refused:
                    self._refuse(refused)
                    return
            else:
                passed = data[:left]
                used = len(passed)
                self._left = left - used
            data = data[used:]
            if passed and not self.transport.is_closing():
                self._ordinary.data_received(passed)
        if self._state == _ORDINARY:
            if data:
                self._hold(data)
            if self._complete():
                self.deadline = NEVER
                self._next()
            else:
                self._wait(self._settings.body_timeout_s)

    def _complete(self) -> bool:
        left = self._left
        return left.ended if isinstance(left, Chunks) else not left

    def _done(self) -> None:
        """The ordinary way has answered."""
        self._answered = True
        self._next()

    def _next(self) -> None:
        if self._state == _ORDINARY and self._answered and self._complete():
            self._again()

    # --- the fast path's Client

    def send(self, data: bytes) -> bool:
        """Write, past the loop's own buffers while they are empty: it is one system call, and who waits for it waits less."""
        transport = self.transport
        if self._blocked or transport.get_write_buffer_size():
            transport.write(data)
            return not self._blocked
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            transport.abort()
            return False
        if sent < len(data):
            transport.set_write_buffer_limits(high=0)
            transport.write(data[sent:])
        return not self._blocked

    def default_headers(self) -> bytes:
        return self._common.default_headers(self._server_state.default_headers)

    def finished(self, *, keep: bool) -> None:
        self._passage = None
        if self._state != _FAST:
            return
        if keep and not self._ending:
            self._again()
        else:
            self._state = _CLOSED
            self.transport.close()

    # --- the connection

    def _again(self) -> None:
        """Ready for the next request, which may be there already."""
        if self._ending:
            self.transport.close()
            return
        self._state = _HEAD
        self._wait(self._config.timeout_keep_alive)
        if self._held_up:
            self._watched_no_more()
            self.transport.resume_reading()
        if self._held:
            self._loop.call_soon(self._held_request)

    def _held_request(self) -> None:
        if self._state == _HEAD and self._held and not self.transport.is_closing():
            data, self._held = self._held, b""
            self._request(data)

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > HELD_BYTES_MAX:
            self.transport.pause_reading()
            if not self._held_up:
                self._held_up = True
                self._common.departures.watch(self._fd, self.transport)

    def _watched_no_more(self) -> None:
        if self._held_up:
            self._held_up = False
            self._common.departures.forget(self._fd)

    def _wait(self, seconds: float) -> None:
        self.deadline = self._loop.time() + seconds

    def _refuse(self, refused: Refused) -> None:
        """Answer what is no request, and close: nobody knows where the next one would begin."""
        self._state = _CLOSED
        self.deadline = NEVER
        self._held = b""
        self._parts = []
        if self.transport.is_closing():
            return
        if self._answered or (self._ordinary is not None and self._ordinary.give_up()):
            answer = plain_answer(refused.status, refused.message, refused.code)
            self.send(plain_head(answer, self.default_headers(), keep=False) + bytes(answer.body))
        self.transport.close()

    def _forget(self) -> None:
        self._server_state.connections.discard(self)
        self._common.connections.discard(self)
