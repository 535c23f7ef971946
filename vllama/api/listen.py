"""The listening sockets, bound before anything else is started, and who holds the port when it is taken."""

import errno
import socket

from vllama.api.holders import PASSING_S_MAX, Holder, holder
from vllama.errors import ConfigError

UNSENT_BYTES_MAX = 2**17
TCP_NOTSENT_LOWAT = 25  # Python 3.11 has no name for it


class Taken(ConfigError):
    """The port is held, as far as can be told by whom."""

    def __init__(self, host: str, port: int, by: Holder, option: str) -> None:
        self.holder = by
        if by.listens:
            mend = f"stop that one, or choose another {option}"
        elif by.passes:
            mend = f"it is free in {PASSING_S_MAX:.0f} s at most"
        elif by.words:
            mend = f"it is free once that has ended; or choose another {option}"
        else:
            mend = f"somebody has bound it who neither listens nor is connected; choose another {option}"
        super().__init__(f"port {port} on {host} is taken{f' by {by.words}' if by.words else ''}; {mend}")


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
    ConfigError (Taken) saying what is wrong and what to do: with `option`, for example."""
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
            raise Taken(host, port, holder(str(address[0]), port), option) from error
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another --host or {option}"
        ) from error
    sock.setblocking(False)
    return sock
