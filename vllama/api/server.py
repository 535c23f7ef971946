"""`vllama serve`: one process that listens, admits, and at the end drains. vllama owns its signals, not uvicorn.

Uvicorn's own shutdown closes the listener first and ends by the signal; here the listener stays open and answers 503 with
Retry-After while what runs is finished, then the engines are stopped, then the exit code is 0.
"""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Iterator
from socket import socket

import uvicorn
from fastapi import FastAPI

from vllama.actors import System
from vllama.api.access import Keys, read_keys, warn_if_exposed
from vllama.api.app import create_app
from vllama.api.listen import listen
from vllama.config import VllamaConfig, load_models
from vllama.errors import VllamaError
from vllama.host.local import LocalHost

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# After the drain only readers of events and idle connections are left.
LAST_CONNECTIONS_S = 2

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Uvicorn without hands on the process: it neither takes signals nor decides when to end."""

    def __init__(self, app: FastAPI, sock: socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                ws="websockets-sansio",
                timeout_graceful_shutdown=LAST_CONNECTIONS_S,
            )
        )
        self._app = app
        self._sock = sock

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_until_told(self) -> None:
        """Serve until `tell_to_end`."""
        await self.serve(sockets=[self._sock])

    def tell_to_end(self) -> None:
        """Close the listener and what is still connected."""
        self._app.state.closing.set()
        self.should_exit = True


class Wishes:
    """What signals have asked for: the first one to end, the second one to hurry."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.hurry = asyncio.Event()

    def take(self, number: signal.Signals) -> None:
        if self.end.is_set():
            log.warning("%s again: aborting what still runs", number.name)
            self.hurry.set()
        else:
            log.warning("%s: finishing what runs; once more to hurry", number.name)
            self.end.set()


async def serve(config: VllamaConfig) -> int:
    """Serve until a signal; the exit code. What keeps it from serving is one line on stderr."""
    try:
        models = load_models(config.models_file)
        keys = read_keys(config)
        sock = listen(config.host, config.port)
    except VllamaError as error:
        sys.stderr.write(f"vllama serve: {error.message}\n")
        return 1
    wishes = Wishes()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, wishes.take, number)
    try:
        return await _serve_on(sock, System(config, LocalHost(config), models), keys, wishes)
    except* VllamaError as errors:
        for each in errors.exceptions:
            sys.stderr.write(f"vllama serve: {each}\n")
    finally:
        sock.close()
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            # All is done: a signal that comes now must not turn a clean end into a death by signal.
            signal.signal(number, signal.SIG_IGN)
    return 1


async def _serve_on(sock: socket, system: System, keys: Keys, wishes: Wishes) -> int:
    """Start, serve, drain, stop: in this order, whatever ends it."""
    control_off = warn_if_exposed(sock.getsockname()[0], keys)
    server = Server(create_app(system, keys, control_off=control_off), sock)
    async with asyncio.TaskGroup() as group:
        try:
            await system.start()
            serving = group.create_task(server.run_until_told())
            host, port = sock.getsockname()[:2]
            log.info("vllama listens on http://%s:%d", f"[{host}]" if ":" in host else host, port)
            ends = [group.create_task(event.wait()) for event in (wishes.end, system.broken)]
            await asyncio.wait([*ends, serving], return_when=asyncio.FIRST_COMPLETED)
            for task in ends:
                task.cancel()
        finally:
            await system.shutdown(wishes.hurry)
            server.tell_to_end()
    if system.broken.is_set():
        log.critical("vllama ends because the broker met a bug; the traceback is above, please report it")
        return 1
    return 0
