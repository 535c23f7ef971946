"""The listening socket, bound before anything else is started, and who holds the port when it is taken."""

import errno
import os
import socket
from pathlib import Path

from vllama.errors import ConfigError


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections already. Raises ConfigError saying what is wrong and what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}: {error.strerror or error}; choose another --host"
        ) from error
    # With the protocol named, or asyncio leaves Nagle's algorithm on and each small answer waits 40 ms for an ACK.
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            message = (
                f"port {port} on {host} is taken{_holder(port)}; stop that one, or choose another --port"
            )
        else:
            message = (
                f"cannot listen on {host} port {port}: {error.strerror}; choose another --host or --port"
            )
        raise ConfigError(message) from error
    sock.setblocking(False)
    return sock


def _holder(port: int) -> str:
    """ " by pid N (its command)" if /proc tells, else nothing: other users' processes are closed to us."""
    inodes = _listeners(port)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) in inodes for link in (process / "fd").iterdir()):
                command = (
                    (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                )
                return f" by pid {process.name} ({command[:80]})"
        except OSError:
            continue  # it ended while we looked, or is not ours to look at
    return ""


def _listeners(port: int) -> set[str]:
    """The names, as /proc/PID/fd links to them, of the TCP sockets that listen on a port."""
    names = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                names.add(f"socket:[{fields[9]}]")
    return names
