"""The connections to engines: a few are kept for each, the rest are closed when their answer ends."""

import asyncio
import errno
import functools
import socket
import time
from collections.abc import Callable

from vllama.api.link import RECEIVE_BYTES, Link
from vllama.errors import Overloaded

# An engine closes an idle connection after 5 s; we let go first, so that a request never meets a closing one.
KEEPALIVE_S = 3.0
KEPT_MAX = 256  # idle ones of one engine
CONNECT_TIMEOUT_S = 10.0
# What keeps a connection from being made here; of the engine it says nothing.
OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})

Address = tuple[str, int]


class Links:
    """Idle connections by engine."""

    def __init__(self) -> None:
        self._idle: dict[
            Address, list[Link]
        ] = {}  # the newest last; a port that was used once keeps its list
        self._open: set[Link] = set()
        self._group: asyncio.TaskGroup | None = None

    def begin_in(self, group: asyncio.TaskGroup) -> None:
        """Connections are begun by tasks of this group from now on."""
        self._group = group

    def close(self) -> None:
        """Close every connection at once; no more are begun."""
        self._group = None
        self._idle.clear()
        for link in tuple(self._open):
            link.drop()

    def kept(self, address: Address) -> Link | None:
        """The connection that was used last, of those that are free."""
        links = self._idle.get(address)
        return links.pop() if links else None

    async def connect(self, address: Address) -> Link:
        """A new one. Raises OSError (TimeoutError too), and Overloaded where it is not the engine that is in the way."""
        try:
            return await self._connect(address)
        except OSError as error:
            if error.errno not in OURS:
                raise
            why = f"this machine lets the server open no more connections ({error.strerror})"
            raise Overloaded(f"{why}; try again, or raise its limits (`ulimit -Hn`).") from error

    async def _connect(self, address: Address) -> Link:
        sock = socket.socket(
            socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
        )
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.sock_connect(sock, address)
                make = functools.partial(self._new, address)
                _, link = await loop.create_connection(make, sock=sock)  # type: ignore[type-var]  # all but the base
        except BaseException:
            sock.close()
            raise
        self._open.add(link)
        return link

    def begin(self, address: Address, then: Callable[[Link | OSError | Overloaded], None]) -> None:
        """A new one, for who has no task: `then` gets it, or what was in the way."""
        assert self._group is not None
        self._group.create_task(self._begin(address, then))

    async def _begin(self, address: Address, then: Callable[[Link | OSError | Overloaded], None]) -> None:
        try:
            found: Link | OSError | Overloaded = await self.connect(address)
        except (OSError, Overloaded) as error:
            found = error
        asyncio.get_running_loop().call_soon(then, found)  # what goes wrong there is not this group's

    def _new(self, address: Address) -> Link:
        links = self._idle.setdefault(address, [])
        return Link(functools.partial(self._free, links), functools.partial(self._ended, links))

    def _free(self, links: list[Link], link: Link) -> None:
        if len(links) >= KEPT_MAX:
            link.drop()
        else:
            link.idle_since = time.monotonic()
            links.append(link)

    def _ended(self, links: list[Link], link: Link) -> None:
        self._open.discard(link)
        if link in links:
            links.remove(link)

    def look(self) -> None:
        """Let go what nobody has used for a while."""
        oldest = time.monotonic() - KEEPALIVE_S
        for links in tuple(self._idle.values()):
            for link in [link for link in links if link.idle_since < oldest]:
                links.remove(link)
                link.drop()
