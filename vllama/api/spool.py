"""A request's body, once it is whole: in memory while it is small, else in a file without a name that ends with it.

It can be sent more than once, and with another `model` in the place of the caller's.
"""

import asyncio
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from vllama.errors import HostUnavailable

MEMORY_BYTES_MAX = 2**20
BLOCK_BYTES = 2**18

T = TypeVar("T")


class Spool:
    """Bytes in order. Disk is touched by other threads only: a slow one must not hold the loop."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._file = _File()
        self._on_disk = 0

    async def add(self, part: bytes) -> None:
        """The next part. Raises HostUnavailable when the disk takes no more."""
        self._parts.append(part)
        self._parts_bytes += len(part)
        self.size += len(part)
        if self._parts_bytes > MEMORY_BYTES_MAX:
            block, self._parts, self._parts_bytes = b"".join(self._parts), [], 0
            try:
                await asyncio.to_thread(self._file.append, block)
            except OSError as error:
                raise HostUnavailable(
                    f"The request body could not be kept in {tempfile.gettempdir()}: {error.strerror}; "
                    "make room there, or set TMPDIR for the server.",
                    retry_after_s=5.0,
                ) from error
            self._on_disk += len(block)

    def whole(self) -> bytes | None:
        """All of it, if all of it is in memory."""
        if self._on_disk:
            return None
        if len(self._parts) != 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]

    async def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` to `end`, in blocks."""
        at = start
        while at < min(end, self._on_disk):
            count = min(BLOCK_BYTES, min(end, self._on_disk) - at)
            block = await asyncio.to_thread(self._file.read, count, at)
            at += len(block)
            yield block
        offset = self._on_disk
        for part in self._parts:
            piece = part[max(0, at - offset) : max(0, end - offset)]
            offset += len(part)
            for begin in range(0, len(piece), BLOCK_BYTES):
                yield piece[begin : begin + BLOCK_BYTES]
            at += len(piece)

    def close(self) -> None:
        """Give memory and disk back. Twice does nothing."""
        self._parts = []
        self._file.close()


class _File:
    """A file that no folder names. Closing it waits for no thread: whoever still writes closes it behind itself."""

    def __init__(self) -> None:
        self._fd = -1
        self._lock = threading.Lock()
        self._closed = False

    def append(self, block: bytes) -> None:
        self._locked(lambda fd: _write_all(fd, block))

    def read(self, count: int, offset: int) -> bytes:
        return self._locked(lambda fd: _read_some(fd, count, offset))

    def close(self) -> None:
        self._closed = True
        if self._lock.acquire(blocking=False):
            try:
                if self._fd >= 0:
                    os.close(self._fd)
                self._fd = -1
            finally:
                self._lock.release()

    def _locked(self, work: Callable[[int], T]) -> T:
        try:
            with self._lock:
                if self._closed:
                    raise OSError("the body is closed")
                if self._fd < 0:
                    self._fd = _unnamed()
                return work(self._fd)
        finally:
            if self._closed:
                self.close()


def _unnamed() -> int:
    fd, path = tempfile.mkstemp(prefix="vllama-body-")
    os.unlink(path)
    return fd


def _write_all(fd: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view) :]


def _read_some(fd: int, count: int, offset: int) -> bytes:
    block = os.pread(fd, count, offset)
    if not block:
        raise OSError("the body's file is shorter than it was")
    return block
