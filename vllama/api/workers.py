"""The worker processes of this server, kept running: started, started again when they die, ended with it.

Each has a listening socket of its own on the common port, which this process holds as well: while a worker is not there, its
connections are served here, and none is lost but those that it had accepted.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence

from vllama.actors import System, Teller, WorkerAccess
from vllama.api.handover import Adopted
from vllama.errors import LaunchError
from vllama.host.workers import WorkerProcess

MODULE = "vllama.api.worker"
SETTLED_S = 10.0  # a worker that lived so long is started again at once
END_S = 5.0
ACCEPTED_AT_ONCE = 100

log = logging.getLogger(__name__)


class Workers:
    """One task a worker. `protocol` makes this server's own protocol for a connection, once `begin` was called."""

    def __init__(
        self,
        system: System,
        listeners: Sequence[socket.socket],
        access: WorkerAccess,
    ) -> None:
        self.protocol: Callable[[], asyncio.Protocol]
        self._system = system
        self._listeners = listeners
        self._access = access
        self._begun = asyncio.Event()
        self._gone = asyncio.Event()
        self._ending = asyncio.Event()
        self._tellers: dict[int, Teller] = {}
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Returns after `end`, when all of them are gone."""
        await self._begun.wait()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for index in range(len(self._listeners)):
                    self._tasks.create_task(self._keep(index))
        finally:
            self._gone.set()

    def begin(self) -> None:
        """This server can serve connections from now on."""
        self._begun.set()

    async def end(self) -> None:
        """Every worker closes what it has and exits. Returns when all are gone."""
        self._ending.set()
        if self._begun.is_set() and len(self._listeners) > 1:
            for teller in self._tellers.values():
                teller.end()
            await self._gone.wait()

    async def _keep(self, index: int) -> None:
        """One worker, again and again."""
        config, delay_s = self._system.config, 0.0
        self._stand_in(index)
        while not self._ending.is_set():
            begun = time.monotonic()
            try:
                why = await self._life(index)
            except LaunchError as error:
                why = error.message
            self._stand_in(index)
            if self._ending.is_set():
                break
            lived_s = time.monotonic() - begun
            delay_s = (
                0.0 if lived_s > SETTLED_S else min(max(2 * delay_s, config.backoff_s), config.backoff_max_s)
            )
            log.error("worker %d %s; the next one starts in %g s", index + 1, why, delay_s)
            self._system.note("worker_lost", f"worker {index + 1} {why}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), delay_s)
        self._stand_down(index)

    async def _life(self, index: int) -> str:
        """From a worker's start to its reaping; how it ended."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            process = WorkerProcess(MODULE, theirs, self._listeners[index], os.environ)
        except LaunchError:
            ours.close()
            raise
        finally:
            theirs.close()
        teller = self._system.bank.open(ours, process.pid, self._adopt, process.kill, self._access)
        self._tellers[index] = teller
        if self._ending.is_set():
            teller.end()
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(e.wait()) for e in (teller.ready, teller.lost, process.exited)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if teller.ready.is_set():
                self._stand_down(index)
                self._system.note("worker_ready", f"worker {index + 1} is pid {process.pid}")
                ends = [group.create_task(e.wait()) for e in (teller.lost, self._ending)]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                waits += ends
            if not process.exited.is_set():
                await self._until_gone(process, group)
            for wait in waits:
                wait.cancel()
        self._tellers.pop(index, None)
        how = f"(pid {process.pid}) ended with {process.code}"
        return f"{how}: {teller.why}" if teller.why else how

    async def _until_gone(self, process: WorkerProcess, group: asyncio.TaskGroup) -> None:
        """It ends by itself, or is killed: nothing is left of it either way."""
        gone = group.create_task(process.exited.wait())
        await asyncio.wait((gone,), timeout=END_S)
        if not gone.done():
            process.kill()
        await gone

    # --- connections that are ours to serve ---------------------------------------------------------------------------

    def _stand_in(self, index: int) -> None:
        """Until the worker accepts, this process does."""
        sock = self._listeners[index]
        asyncio.get_running_loop().add_reader(sock.fileno(), self._accept, sock)

    def _stand_down(self, index: int) -> None:
        asyncio.get_running_loop().remove_reader(self._listeners[index].fileno())

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor is left: it stays in the queue until one is
                log.error("cannot accept a connection: %s", error)
                return
            self._serve(sock, b"")

    def _adopt(self, fd: int, data: bytes) -> None:
        """A worker has handed this connection over."""
        self._serve(socket.socket(fileno=os.dup(fd)), data)

    def _serve(self, sock: socket.socket, data: bytes) -> None:
        sock.setblocking(False)
        self._tasks.create_task(self._connect(sock, data))

    async def _connect(self, sock: socket.socket, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: Adopted(self.protocol(), data), sock)
        except OSError as error:  # it was reset on the way
            log.debug("a connection ended before it was served: %s", error)
            sock.close()
