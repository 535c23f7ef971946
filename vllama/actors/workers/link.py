"""One end of the socket between a worker process and the system: frames of messages, descriptors beside them, and its end.

A SOCK_SEQPACKET pair, made by the system and inherited: no name in the file system, nobody else can connect. What is said
within one turn of the loop goes out as one frame. Nothing here blocks: what does not fit waits, in order.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from vllama.actors.workers.wire import encode

M = TypeVar("M")

PIECE_BYTES = 48 * 1024  # of a frame; well below what a socket's buffer holds
PACKETS_A_TURN = 64
LAST, MORE = b"\0", b"\1"


class Link(Generic[M]):
    """`receive(message, fd)` is called for each message, and the descriptor closed behind it; `lost()` once, at the other side's
    end or when it talks nonsense."""

    def __init__(
        self,
        sock: socket.socket,
        decoder: msgspec.msgpack.Decoder[list[M]],
        receive: Callable[[M, int | None], None],
        lost: Callable[[str], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decoder = decoder
        self._receive = receive
        self._lost: Callable[[str], None] | None = lost
        self._loop = asyncio.get_running_loop()
        self._said: list[Any] = []
        self._waiting: deque[tuple[bytes, int | None]] = deque()  # packets that the socket had no room for
        self._blocked = False  # the socket has no room
        self._pieces: list[bytes] = []
        self._soon = False
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def closed(self) -> bool:
        return self._lost is None

    # --- out ----------------------------------------------------------------------------------------------------------

    def say(self, message: object) -> None:
        """Goes out with all else that is said in this turn of the loop."""
        self._said.append(message)
        if not self._soon:
            self._soon = True
            self._loop.call_soon(self.flush)

    def hand(self, message: object, fd: int) -> None:
        """A frame of its own, with a descriptor, which is closed here."""
        self.flush()
        self._post(encode([message]), fd)

    def flush(self) -> None:
        """What was said is on its way, in the order in which it was said."""
        self._soon = False
        if self._said:
            said, self._said = self._said, []
            self._post(encode(said), None)

    def _post(self, frame: bytes, fd: int | None) -> None:
        if self.closed:
            _close(fd)
            return
        while len(frame) > PIECE_BYTES:
            self._waiting.append((MORE + frame[:PIECE_BYTES], None))
            frame = frame[PIECE_BYTES:]
        self._waiting.append((LAST + frame, fd))
        if not self._blocked:
            self._writable()

    def _writable(self) -> None:
        while self._waiting:
            packet, fd = self._waiting[0]
            try:
                if fd is None:
                    self._sock.send(packet, socket.MSG_NOSIGNAL)
                else:
                    socket.send_fds(self._sock, [packet], [fd], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                if not self._blocked:
                    self._blocked = True
                    self._loop.add_writer(self._sock.fileno(), self._writable)
                return
            except OSError as error:
                self.close(error.strerror or str(error))
                return
            self._waiting.popleft()
            _close(fd)
        if self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._sock.fileno())

    # --- in -----------------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        for _ in range(PACKETS_A_TURN):
            if self.closed:
                return
            try:
                packet, fds, _, _ = socket.recv_fds(self._sock, PIECE_BYTES + 1, 1)
            except BlockingIOError:
                return
            except OSError as error:
                self.close(error.strerror or str(error))
                return
            if not packet:
                self.close("its end of the socket was closed")
                return
            self._take(packet, fds[0] if fds else None)

    def _take(self, packet: bytes, fd: int | None) -> None:
        self._pieces.append(packet[1:])
        if packet[:1] == MORE:
            return
        frame = b"".join(self._pieces) if len(self._pieces) > 1 else self._pieces[0]
        self._pieces.clear()
        if fd is not None:
            os.set_inheritable(fd, False)
        try:
            messages = self._decoder.decode(frame)
        except msgspec.DecodeError as error:
            _close(fd)
            self.close(f"it talked nonsense: {error}")
            return
        first = fd
        try:
            for message in messages:
                if self.closed:
                    break
                self._receive(message, first)
                first = None
        finally:
            _close(fd)  # where no copy of it can be made, as well: it may be the last one that there is

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self, why: str) -> None:
        """Nothing more is read or written; `lost` hears why. What is still to be said is dropped."""
        lost, self._lost = self._lost, None
        if lost is None:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        for _, fd in self._waiting:
            _close(fd)
        self._waiting.clear()
        self._sock.close()
        lost(why)


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
