"""TCP ports of engines: which one is free now, and whose listener stands on one. Linux: reads /proc.

The range lies within Linux's ephemeral ports, so a port tested free may be taken before the engine binds it: the
engine then dies of EADDRINUSE, and the next launch tests again.
"""

import os
import socket
from collections.abc import Collection, Iterable
from contextlib import suppress

LOOPBACK = "127.0.0.1"
_LISTEN = "0A"


def free_port(start: int, end: int, taken: Collection[int], wanted: int = 0) -> int | None:
    """A port of [start, end] that can be bound now: `wanted` if possible, else the lowest. None: all are in use."""
    candidates = [wanted] if start <= wanted <= end else []
    candidates += range(start, end + 1)
    return next((port for port in candidates if port not in taken and can_bind(port)), None)


def can_bind(port: int) -> bool:
    """Whether an engine could listen on this port of loopback. Connections in TIME_WAIT are no hindrance."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)  # two sockets with SO_REUSEADDR may share a bind, never a listen
        except OSError:
            return False
    return True


def listener_inodes(port: int) -> frozenset[int]:
    """The sockets of this machine that listen on this TCP port, on any address."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError), open(table, encoding="ascii") as lines:
            next(lines, None)
            for line in lines:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(int(fields[9]))
    return frozenset(found)


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
