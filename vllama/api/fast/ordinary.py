"""Uvicorn's own protocol behind the front: it is fed one request at a time and says when that one is answered."""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState


class Ordinary(HttpToolsProtocol):
    """The way to FastAPI."""

    def __init__(
        self,
        done: Callable[[], None],
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._done = done

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the front watches the clock
        self._done()

    def give_up(self) -> bool:
        """The request that is being read is none: the application is told that its client has left. Whether it has said nothing
        yet."""
        cycle = self.cycle
        cycle.disconnected = True
        cycle.message_event.set()
        return not cycle.response_started
