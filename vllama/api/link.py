"""One connection to an engine: a request goes out, the answer's head and bytes go to whoever asked, one answer at a time.

The bytes of an answer in chunks are handed over as they stand, frames and all, to who can use them so (`framed`): most pieces are
whole chunks, and are then neither copied nor looked at again. Who stops listening closes the connection: `drop`.
"""

import asyncio
import os
import re
import select
from collections.abc import Callable
from typing import Protocol, cast

from vllama.api.engine_answer import Answer, Answers, LinkBroken

HEAD_BYTES_MAX = 64 * 1024
LINE_BYTES_MAX = 4096
# How much of an answer lies in the kernel, and so how much comes at once: what a slow reader's answer takes here.
RECEIVE_BYTES = 64 * 1024

_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")
_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;.*)?", re.DOTALL)

_answers = Answers()

_IDLE, _HEAD, _LENGTH, _CHUNKED, _REST, _OVER = range(6)


class Asker(Protocol):
    """Who asked. `begin` comes first, then bytes, then `done` or `broken`, after which nothing comes."""

    framed: bool  # wants an answer's chunks as they stand

    def begin(self, answer: Answer, length: int | None) -> None:
        """`length` None: in chunks, or to the end of the connection."""

    def frames(self, data: bytes, size: int, *, last: bool) -> None:
        """Whole chunks, with their frames, of so many bytes of the body; `last`: the one that ends the answer too."""

    def piece(self, data: bytes) -> None:
        """Bytes of the body."""

    def flush(self) -> None:
        """Nothing more is at hand."""

    def done(self) -> None: ...

    def broken(self, error: LinkBroken) -> None: ...


class Link:
    """A connection. `on_free` is told when it may be asked again, `on_end` when it has ended. An asyncio.Protocol in all but the
    base, which would keep it from being compiled."""

    def __init__(self, on_free: Callable[["Link"], None], on_end: Callable[["Link"], None]) -> None:
        self.idle_since = 0.0
        self.closed = False
        self._on_free = on_free
        self._on_end = on_end
        self._asker: Asker | None = None
        self._state = _IDLE
        self._bodyless = False
        self._keep = False
        self._left = 0  # bytes of the body, or of the chunk that is being read
        self._buffer = b""  # a head, or a chunk's line, that is not whole yet
        self._trailing = False
        self._behind = False
        self._paused = False
        self._writing = False  # the request's body is not all out
        self._room = asyncio.Event()
        self._room.set()

    # --- who asks

    def ask(self, request: bytes, asker: Asker, *, bodyless: bool = False, more: bool = False) -> bool:
        """Send a whole request; `more`: its beginning, the rest goes by `write`. False: the engine has closed this connection and
        has seen nothing of it."""
        if self.closed or self._poll.poll(0):
            self.drop()
            return False
        try:
            sent = os.write(self._fd, request)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.drop()
            return False
        self._asker, self._state, self._bodyless, self._writing = asker, _HEAD, bodyless, more
        if sent < len(request):
            self.transport.write(request[sent:])
        return True

    async def write(self, data: bytes) -> None:
        """More of the request's body. Returns when there is room for what follows, or nobody takes it any more."""
        if not self.closed:
            self.transport.write(data)
            await self._room.wait()

    def wrote(self) -> None:
        """The request is whole."""
        self._writing = False

    def pause(self) -> None:
        """Take no more of the answer for now."""
        if not self._paused and not self.closed:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            if not self.closed:
                self.transport.resume_reading()

    def drop(self) -> None:
        """Close at once; whoever asked is told nothing more."""
        self._asker = None
        if not self.closed:
            self.closed = True
            self.transport.abort()

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._fd = transport.get_extra_info("socket").fileno()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._room.set()
        self._on_end(self)
        if self._asker is not None:
            if self._state == _REST and exc is None:
                self._finish()
            else:
                self._break(str(exc) if exc else "it closed the connection")

    def eof_received(self) -> None:
        """The engine says no more: the transport closes itself."""

    def data_received(self, data: bytes) -> None:
        asker = self._asker
        if asker is None:
            self.drop()  # nobody asked, or nobody listens any more
            return
        try:
            if self._state == _HEAD:
                data = self._head(data)
            if data and self._asker is not None:
                self._body(data)
        except LinkBroken as error:
            self._break(str(error))
        else:
            if self._asker is not None:
                asker.flush()

    # --- the answer

    def _head(self, data: bytes) -> bytes:
        """What comes behind the head; nothing while it is not whole."""
        data = self._buffer + data if self._buffer else data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0 or end > HEAD_BYTES_MAX:
                if len(data) > HEAD_BYTES_MAX:
                    raise LinkBroken("the head of its answer is too long")
                self._buffer = data
                return b""
            answer, length = _answers.read(data[:end])
            data = data[end + 4 :]
            if answer.status >= 200:
                break
            if answer.status == 101:
                raise LinkBroken("it wants to speak another protocol")
        self._buffer = b""
        self._keep = answer.keep
        asker = self._asker
        assert asker is not None
        if self._bodyless or answer.status in (204, 304):
            self._state = _OVER
        elif answer.chunked:
            self._state, self._left, self._trailing, self._behind = _CHUNKED, 0, False, False
        elif length is not None:
            self._state, self._left = _LENGTH if length else _OVER, length
        else:
            self._state, self._keep = _REST, False
        asker.begin(answer, length)
        if self._state == _OVER and self._asker is not None:
            self._keep = self._keep and not data
            self._finish()
        return data

    def _body(self, data: bytes) -> None:
        asker = self._asker
        assert asker is not None
        if self._state == _CHUNKED:
            self._chunks(data, asker)
        elif self._state == _REST:
            asker.piece(data)
        elif self._state == _LENGTH:
            if len(data) > self._left:
                data, self._keep = data[: self._left], False
            self._left -= len(data)
            asker.piece(data)
            if not self._left and self._asker is not None:
                self._finish()

    def _chunks(self, data: bytes, asker: Asker) -> None:
        at, size, payload = 0, len(data), 0
        if asker.framed and not (self._left or self._behind or self._trailing or self._buffer):
            while at < size and (head := _CHUNK.match(data, at)) is not None:
                length = int(head[1], 16)
                end = head.end() + length + 2
                if end > size or data[end - 2 : end] != b"\r\n":
                    break
                at = end
                payload += length
                if not length:  # the end, without trailers
                    self._keep = self._keep and at == size
                    asker.frames(data[:at], payload, last=True)
                    self._finish()
                    return
            if at:
                asker.frames(data if at == size else data[:at], payload, last=False)
        if at < size and self._asker is not None:
            self._parts(data, at, asker)

    def _parts(self, data: bytes, at: int, asker: Asker) -> None:
        """Chunks that are not whole, or not plain: byte for byte."""
        while at < len(data) and self._asker is not None:
            if self._left:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                self._behind = not self._left
                at += len(piece)
                asker.piece(piece)
                continue
            end = data.find(b"\n", at)
            line = self._buffer + data[at : len(data) if end < 0 else end]
            if len(line) > LINE_BYTES_MAX:
                raise LinkBroken("its answer has a chunk whose head is too long")
            if end < 0:
                self._buffer = line
                return
            self._buffer, at = b"", end + 1
            if self._line(line.removesuffix(b"\r")):
                self._keep = self._keep and at == len(data)
                self._finish()

    def _line(self, line: bytes) -> bool:
        """One line between chunks; whether it was the answer's last."""
        if self._trailing:
            return not line
        if self._behind:
            if line:
                raise LinkBroken("its answer has a chunk that is longer than it says")
            self._behind = False
            return False
        size = _SIZE.fullmatch(line)
        if size is None:
            raise LinkBroken("its answer has a chunk without a size")
        self._left = int(size[1], 16)
        self._trailing = not self._left
        return False

    def _finish(self) -> None:
        """The answer is whole: the connection is free again before anybody hears of it."""
        asker, self._asker, self._state = self._asker, None, _IDLE
        if self._keep and not self._writing and not self.closed:
            self.resume()
            self._on_free(self)
        elif not self.closed:
            self.closed = True
            self.transport.close()
        if asker is not None:
            asker.done()

    def _break(self, why: str) -> None:
        asker = self._asker
        self.drop()
        if asker is not None:
            asker.broken(LinkBroken(why))
