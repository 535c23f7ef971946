"""What a worker process serves by itself, and how every other connection gets to the system process.

A worker takes requests of the data routes, fast or ordinarily. At whatever else (control, debug, a websocket, an unknown path)
the connection goes to the system: its descriptor, and the bytes that were read of it. So the client's address, its headers and
all rules of access are as if there were no workers.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from vllama.api import routes
from vllama.api.fast.common import Common
from vllama.api.fast.front import Front
from vllama.api.fast.head import Head

# /v1/responses is not among them: which engine made a response is known to one process.
TAKEN = frozenset(
    path.encode() for path in (*routes.JSON_PATHS, *routes.FORM_PATHS) if path != routes.RESPONSES
)
FLUSH_LOOK_S = 0.005

Give = Callable[[int, bytes], None]  # a descriptor that is the receiver's to close, and what was read


class WorkerCommon(Common):
    """The fast path of a worker takes no route that the worker does not."""

    def _path_of(self, head: Head) -> str | None:
        return super()._path_of(head) if takes(head) else None


class WorkerFront(Front):
    """A client's connection, as long as it asks for what a worker serves."""

    def __init__(
        self,
        give: Give,
        common: Common,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(common, config, server_state, app_state, _loop)
        self._give = give

    def _hand_over(self, head: Head, data: bytes, at: int, length: int | None) -> None:
        if takes(head):
            super()._hand_over(head, data, at, length)
        else:
            self._forget()
            hand_over(self.transport, data + self._held, self._give)


def takes(head: Head) -> bool:
    """Whether a worker serves this request."""
    return head.method == b"POST" and head.target.partition(b"?")[0] in TAKEN


def hand_over(transport: asyncio.Transport, data: bytes, give: Give) -> None:
    """The connection goes on elsewhere, once all that was written to it is out. What calls this is told nothing more of it."""
    transport.pause_reading()
    transport.set_protocol(asyncio.Protocol())
    _when_flushed(transport, data, give)


def _when_flushed(transport: asyncio.Transport, data: bytes, give: Give) -> None:
    if transport.is_closing():
        return
    if transport.get_write_buffer_size():
        loop = asyncio.get_running_loop()
        loop.call_later(FLUSH_LOOK_S, _when_flushed, transport, data, give)
        return
    give(os.dup(transport.get_extra_info("socket").fileno()), data)
    transport.abort()  # closes our descriptor, not the connection


class Adopted(asyncio.Protocol):
    """The first moment of a connection that was handed over: what was read of it comes before all that is read now."""

    def __init__(self, protocol: asyncio.Protocol, data: bytes) -> None:
        self._protocol = protocol
        self._data = data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        transport.set_protocol(self._protocol)
        self._protocol.connection_made(transport)
        if self._data:
            self._protocol.data_received(self._data)
