"""The listening sockets, bound before anything else is started, and who holds the port when it is taken."""

import errno
import os
import socket
from pathlib import Path

from vllama.errors import ConfigError

UNSENT_BYTES_MAX = 2**17
TCP_NOTSENT_LOWAT = 25  # Python 3.11 has no name for it


def listen_each(host: str, port: int, count: int) -> list[socket.socket]:
    """So many sockets on one port: the kernel spreads connections over them. Raises ConfigError."""
    first = listen(host, port, shared=count > 1)
    try:
        more = [listen(host, first.getsockname()[1], joins=True) for _ in range(count - 1)]
    except ConfigError:
        first.close()
        raise
    return [first, *more]


def listen(
    host: str, port: int, *, shared: bool = False, joins: bool = False, option: str = "--port"
) -> socket.socket:
    """A socket that accepts connections already. `shared`: others of ours may join its port; `joins`: this one does. Raises
    ConfigError saying what is wrong and what to do: with `option`, for example."""
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
        if joins:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # What a client does not read piles up in the kernel no higher than this; each connection has it from the listener.
        sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)
        sock.bind(address)
        if (
            shared
        ):  # only now: whoever has the port already, another server of this user too, keeps it for itself
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.listen(2048)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            message = (
                f"port {port} on {host} is taken{holder(port)}; stop that one, or choose another {option}"
            )
        else:
            message = (
                f"cannot listen on {host} port {port}: {error.strerror}; choose another --host or {option}"
            )
        raise ConfigError(message) from error
    sock.setblocking(False)
    return sock


def holder(port: int) -> str:
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
