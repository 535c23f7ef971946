"""Clients that are not read, and leave.

A transport that is not read does not look at its socket, so it learns of its client's going only when it reads again, which may
be an answer later. The kernel tells it at once to who asks for nothing else.
"""

import asyncio
import select

_GONE = select.EPOLLRDHUP  # the ends of a broken connection are told unasked


class Departures:
    """Held-up connections, by their descriptors; one that its client has left is aborted. The loop looks at one descriptor for
    all of them, and there is none while nobody is held up."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._transports: dict[int, asyncio.Transport] = {}

    @property
    def watched(self) -> int:
        """How many are held up."""
        return len(self._transports)

    def watch(self, fd: int, transport: asyncio.Transport) -> None:
        """From now on, until `forget`, the transport is aborted when its client leaves."""
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._look)
        self._transports[fd] = transport
        self._epoll.register(fd, _GONE)

    def forget(self, fd: int) -> None:
        """It is read again, or gone. Before its descriptor is closed: the number may be another connection's by then."""
        if self._transports.pop(fd, None) is None or self._epoll is None:
            return
        self._epoll.unregister(fd)
        if not self._transports:
            self.close()

    def close(self) -> None:
        """Watch nobody any more."""
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
            self._transports.clear()

    def _look(self) -> None:
        if self._epoll is not None:
            for fd, _ in self._epoll.poll(0):
                self._transports[fd].abort()
