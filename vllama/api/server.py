"""`vllama serve`: one process that listens, admits, and at the end drains. vllama owns its signals, not uvicorn.

Uvicorn's own shutdown closes the listener first and ends by the signal; here the listener stays open and answers 503 with
Retry-After while what runs is finished, then the engines are stopped, then the exit code is 0.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from socket import socket

from vllama.actors import System, WorkerAccess
from vllama.api.access import Keys, read_keys, warn_if_exposed
from vllama.api.app import create_app
from vllama.api.fast.front import Front
from vllama.api.holders import PASSING_S_MAX
from vllama.api.listen import Taken, listen, listen_each
from vllama.api.serving import Server
from vllama.api.workers import Workers
from vllama.config import VllamaConfig, load_models
from vllama.errors import VllamaError
from vllama.host.limits import allow_open_files
from vllama.host.local import LocalHost

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PASSING_LOOK_S = 0.25
LATE_S = 5.0  # the kernel looks at what has ended in rounds

log = logging.getLogger(__name__)


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
    allow_open_files()
    wishes = Wishes()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, wishes.take, number)
    try:
        return await _listen_and_serve(config, wishes)
    except* VllamaError as errors:
        for each in errors.exceptions:
            sys.stderr.write(f"vllama serve: {each}\n")
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            # All is done: a signal that comes now must not turn a clean end into a death by signal.
            signal.signal(number, signal.SIG_IGN)
    return 1


async def _listen_and_serve(config: VllamaConfig, wishes: Wishes) -> int:
    """Raises ConfigError, or a group with VllamaErrors."""
    models = load_models(config.models_file)
    keys = read_keys(config)
    with ExitStack() as opened:
        socks, also = await once_passed(lambda: listen_to(config, opened), wishes.end)
        if not socks:
            return 0  # a signal came first
        return await _serve_on(socks, also, System(config, LocalHost(config), models), keys, wishes)


async def once_passed(
    listening: Callable[[], tuple[list[socket], list[socket]]], ended: asyncio.Event
) -> tuple[list[socket], list[socket]]:
    """What is opened. A port that is held by nothing but the end of a connection is waited for; none is opened when the server is
    told to end meanwhile. Raises ConfigError."""
    deadline = None
    while True:
        try:
            return listening()
        except Taken as taken:
            now = asyncio.get_running_loop().time()
            if not taken.holder.passes or (deadline is not None and now > deadline):
                raise
            if deadline is None:
                deadline = now + PASSING_S_MAX + LATE_S
                log.warning("%s: waiting for that", taken.message)
        try:
            async with asyncio.timeout(PASSING_LOOK_S):
                await ended.wait()
            return [], []
        except TimeoutError:
            continue


def listen_to(config: VllamaConfig, opened: ExitStack) -> tuple[list[socket], list[socket]]:
    """The server's port, a socket for each worker, and maybe a second one, for who looks for Ollama at its own. Raises
    ConfigError; then none is open."""
    with ExitStack() as so_far:
        socks = [so_far.enter_context(each) for each in listen_each(config.host, config.port, config.workers)]
        also = []
        if config.ollama_port is not None:
            also = [so_far.enter_context(listen(config.host, config.ollama_port, option="--ollama-port"))]
        opened.enter_context(so_far.pop_all())
    return socks, also


async def _serve_on(
    socks: list[socket], also: list[socket], system: System, keys: Keys, wishes: Wishes
) -> int:
    """Start, serve, drain, stop: in this order, whatever ends it."""
    control_off = warn_if_exposed(socks[0].getsockname()[0], keys)
    app = create_app(system, keys, control_off=control_off)
    workers = Workers(system, socks, WorkerAccess(keys.data, keys.control, control_off))
    front = partial(Front, app.state.common)
    alone = len(socks) == 1
    server = (
        Server(app, front, [*socks, *also]) if alone else Server(app, front, also, on_start=workers.begin)
    )
    workers.protocol = server.protocol
    async with asyncio.TaskGroup() as group:
        try:
            await system.start()
            serving = group.create_task(server.run_until_told())
            if not alone:
                group.create_task(workers.run())
            for sock in (socks[0], *also):
                host, port = sock.getsockname()[:2]
                log.info("vllama listens on http://%s:%d", f"[{host}]" if ":" in host else host, port)
            ends = [group.create_task(event.wait()) for event in (wishes.end, system.broken)]
            await asyncio.wait([*ends, serving], return_when=asyncio.FIRST_COMPLETED)
            for task in ends:
                task.cancel()
        finally:
            await system.shutdown(wishes.hurry)
            await workers.end()
            server.tell_to_end()
    if system.broken.is_set():
        log.critical("vllama ends because the broker met a bug; the traceback is above, please report it")
        return 1
    return 0
