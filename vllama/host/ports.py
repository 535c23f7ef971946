"""TCP ports of engines: one reserved for each launch, and whose listener stands on it. Linux: reads /proc.

The range lies within Linux's ephemeral ports, and other servers use it too. A reservation keeps other vllamas away; any
other program may still take the port before the engine listens: the engine then ends, and the next launch tries another.
"""

import os
import socket
from collections.abc import Collection, Iterable
from contextlib import suppress

LOOPBACK = "127.0.0.1"
_LISTEN, _TIME_WAIT = "0A", "06"


def reserve(start: int, end: int, taken: Collection[int], wanted: int = 0) -> socket.socket | None:
    """A socket bound to a port of [start, end], `wanted` if possible, else the lowest. None: all are in use.

    It is bound alone and only then made sharable: nobody else can reserve the port while it is open, and an engine, whose
    socket has SO_REUSEADDR as every server's, binds and listens beside it.
    """
    candidates = [wanted] if start <= wanted <= end else []
    candidates += range(start, end + 1)
    return next((sock for port in candidates if port not in taken and (sock := _reserve(port))), None)


def _reserve(port: int) -> socket.socket | None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        try:
            sock.bind((LOOPBACK, port))
        except OSError:
            # What is left of an engine's connections is no hindrance, a listener or another's reservation is.
            if set(_states(port)) != {_TIME_WAIT}:
                raise
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((LOOPBACK, port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError:
        sock.close()
        return None
    return sock


def _states(port: int) -> Iterable[str]:
    return (state for state, _ in _sockets(port))


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
