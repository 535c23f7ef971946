"""What every connection of the fast path shares."""

import asyncio
import random
from collections.abc import Iterable
from typing import Protocol

from vllama.actors import Route
from vllama.api.access import Keys
from vllama.api.fast.departures import Departures
from vllama.api.fast.head import Head, Heads
from vllama.api.kinds import unserved
from vllama.api.links import Links
from vllama.api.proxy import Edge
from vllama.api.routes import JSON_PATHS

ID_CHARS_MAX = 128

_PATHS = {path.encode(): path for path in JSON_PATHS}


class Waiting(Protocol):
    """A connection whose client must do something by a moment."""

    deadline: float

    def overdue(self) -> None: ...


class Common:
    """One for each server: where tickets come from, the connections to engines, who may ask, who is waited for."""

    def __init__(self, edge: Edge, links: Links, keys: Keys) -> None:
        self.desk = edge.desk
        self.links = links
        self.responses = edge.responses
        self.pace = edge.pace
        self.traffic = edge.traffic
        self.heads = Heads()
        self.departures = Departures()
        self.connections: set[Waiting] = set()
        self._default: list[tuple[bytes, bytes]] = []
        self._default_lines = b""
        self._keys = keys
        self._open = not keys.data
        self._pages = bool(edge.desk.config.cors_origins)
        self._traced = edge.tracing is not None  # spans are the ordinary way's

    def path_of(self, head: Head) -> str | None:
        """The engine's path, for a request that the fast path takes whole; None: the ordinary way."""
        if head.path is None:  # looked at once, however often it comes
            head.path = self._path_of(head) or ""
        return None if self.desk.stopping else head.path or None

    def _path_of(self, head: Head) -> str | None:
        if head.odd or head.method != b"POST" or self._traced or (self._pages and head.origin):
            return None
        path = _PATHS.get(head.target.partition(b"?")[0])
        if path is None or b"#" in head.target:
            return None
        return path if self._open or self._keys.opens(_given(head.keys), control=False) else None

    def route_of(self, path: str, name: str) -> Route | None:
        """Where a name leads on a path, if its model may serve that; None: the ordinary way says what is wrong."""
        desk = self.desk
        route = desk.find(name)
        return None if route is None or unserved(desk.catalog.kind_of(route.model), path, "") else route

    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The server's own headers (the date), as lines; uvicorn makes a new list each second."""
        if headers is not self._default:
            self._default = headers
            self._default_lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._default_lines

    def look(self) -> None:
        """Let go whose time is over."""
        now = asyncio.get_running_loop().time()
        for connection in [each for each in self.connections if each.deadline < now]:
            connection.overdue()


def request_id(head: Head) -> bytes:
    """The client's own id if it is short and printable, else a new one."""
    given = head.given_id
    if given and len(given) <= ID_CHARS_MAX and given.isascii() and b"\t" not in given:
        return given
    return b"%032x" % random.getrandbits(128)


def _given(keys: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """The keys of a request, as access.py reads them."""
    found = []
    for name, value in keys:
        scheme, _, key = value.partition(b" ")
        if name == b"x-api-key":
            found.append(value.decode("latin-1"))
        elif scheme.lower() == b"bearer":
            found.append(key.strip().decode("latin-1"))
    return found
