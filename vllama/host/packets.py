"""One JSON object a packet, with descriptors beside it, over a pair of unix sockets that keep packet boundaries.

Standard library only. An empty packet is the other side's end.
"""

import json
import os
import socket
import struct
from typing import Any

_BYTES_MAX = 200_000
_FDS_MAX = 8
SEND_TIMEOUT_S = 5.0

Packet = dict[str, Any]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, closed on exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, packet: Packet, fds: tuple[int, ...] = ()) -> None:
    """The packet is in the other side's buffer. Raises OSError: the other side is gone, or reads nothing any more."""
    data = json.dumps(packet).encode()
    if len(data) > _BYTES_MAX:
        raise OSError(f"a message of {len(data)} bytes is more than the {_BYTES_MAX} that fit in a packet")
    socket.send_fds(sock, [data], list(fds), socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, *, wait: bool = True) -> tuple[Packet | None, list[int]]:
    """The next packet and its descriptors (the caller's to close); None at the other side's end.
    Raises BlockingIOError when there is none and `wait` is False."""
    flags = 0 if wait else socket.MSG_DONTWAIT
    try:
        data, fds, _, _ = socket.recv_fds(sock, _BYTES_MAX, _FDS_MAX, flags)
    except ConnectionError:
        return None, []
    for fd in fds:
        os.set_inheritable(fd, False)
    return (json.loads(data) if data else None), fds


def bound_sends(sock: socket.socket) -> None:
    """A send on this end gives up when the other side has read nothing for a while, and never waits for ever."""
    seconds = int(SEND_TIMEOUT_S)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, 0))
