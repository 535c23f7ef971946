"""TCP ports of engines: one reserved for each launch, and whose listener stands on it. Linux: reads /proc.

The range lies within Linux's ephemeral ports, and other servers use it too. A reservation keeps other vllamas away; any
other program may still take the port before the engine listens: the engine then ends, and the next launch tries another.
"""

import errno
import os
import socket
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A port that no other vllama of this machine takes until `close`, or until this process ends.

    The mark is an abstract unix socket: it lives where TCP ports live (the network namespace) and leaves no file. A TCP
    socket that is only bound would not do: next to connections in TIME_WAIT anybody may bind it once more.
    """

    port: int
    mark: socket.socket

    def close(self) -> None:
        self.mark.close()


def reserve(start: int, end: int, wanted: int = 0) -> Reservation | None:
    """A port of [start, end] on which nobody listens, `wanted` if possible, else the lowest. None: all are in use."""
    candidates = [wanted] if start <= wanted <= end else []
    candidates += range(start, end + 1)
    return next((found for port in candidates if (found := _reserve(port))), None)


def _reserve(port: int) -> Reservation | None:
    mark = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mark.bind(f"\0vllama-port-{port}")
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # as vLLM binds it: TIME_WAIT is no hindrance
            probe.bind((LOOPBACK, port))
    except OSError:
        mark.close()
        return None
    return Reservation(port, mark)


def listened_on(port: int) -> bool:
    """Whether anybody seems to take connections on this port of the loopback address: one that meets itself, because its own
    port fell on this one, looks the same. Does not wait; what is refused later than at once is somebody too."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        error = probe.connect_ex((LOOPBACK, port))
        if error == errno.EINPROGRESS:
            error = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return error != errno.ECONNREFUSED


def listener_inodes(port: int) -> frozenset[int]:
    """The sockets of this machine that listen on this TCP port, on any address."""
    return frozenset(inode for state, inode in _sockets(port) if state == _LISTEN)


def _sockets(port: int) -> Iterable[tuple[str, int]]:
    """State and inode of what is connected from, or listens on, this local port."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError), open(table, encoding="ascii") as lines:
            next(lines, None)
            for line in lines:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[3], int(fields[9])


def owned_by(inodes: Collection[int], pids: Iterable[int]) -> bool:
    """Whether one of these processes holds one of these sockets."""
    names = {f"socket:[{inode}]" for inode in inodes}
    for pid in pids:
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
            for descriptor in descriptors:
                with suppress(OSError):
                    if os.readlink(descriptor.path) in names:
                        return True
    return False
