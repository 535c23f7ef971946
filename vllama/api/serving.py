"""Uvicorn's server as this program uses it, in the server's own process and in workers."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from socket import socket
from typing import Any

import uvicorn
from starlette.applications import Starlette

# After the drain only readers of events and idle connections are left.
LAST_CONNECTIONS_S = 2


class Server(uvicorn.Server):
    """Uvicorn without hands on the process: it neither takes signals nor decides when to end."""

    def __init__(
        self,
        app: Starlette,
        http: Callable[..., Any],
        socks: Sequence[socket],
        on_start: Callable[[], None] | None = None,
    ) -> None:
        """Accepts on these sockets, which may be none: `protocol` makes what serves a connection that comes otherwise."""
        super().__init__(
            uvicorn.Config(
                app,
                http=http,  # type: ignore[arg-type]  # whatever makes a protocol
                log_config=None,
                access_log=False,
                server_header=False,
                ws="websockets-sansio",
                timeout_graceful_shutdown=LAST_CONNECTIONS_S,
            )
        )
        self._app = app
        self._socks = list(socks)
        self._on_start = on_start

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_until_told(self) -> None:
        """Serve until `tell_to_end`."""
        await self.serve(sockets=self._socks)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_start is not None:
            self._on_start()

    def protocol(self) -> asyncio.Protocol:
        """What serves one connection. Only once the server has started."""
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def tell_to_end(self) -> None:
        """Close the listener and what is still connected."""
        self._app.state.closing.set()
        self.should_exit = True
