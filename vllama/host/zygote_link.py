"""vllama's end of the zygote: loading, ready or broken; started again when it dies; one fork at a time."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vllama.errors import LaunchError
from vllama.host import packets
from vllama.host.guard_link import GuardLink, module_argv

if TYPE_CHECKING:
    import socket

ZygoteState = Literal["off", "loading", "ready", "broken"]

_FORK_TIMEOUT_S = 30.0
_BACKOFF_S, _BACKOFF_MAX_S = 1.0, 60.0
_FAILURES_MAX = 3  # preloads in a row that died
_HEALTHY_S = 60.0  # having lived so long, a zygote's death counts as the first
# What a preload must find before its first line: OpenBLAS would leave a thread behind, and a fork wants to be alone.
_ENV = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class CannotFork(Exception):
    """This one engine was not forked; the message says why."""


class ZygoteLink:
    """One zygote at most, in the interpreter `python`. `emit(kind, detail)` tells of what changes by itself."""

    def __init__(self, guard: GuardLink, python: str, log: Path, emit: Callable[[str, str], None]) -> None:
        self.state: ZygoteState = "off"
        self.reason = "no zygote was started"
        self.pid = self.start_time = 0
        self._guard = guard
        self._python = python
        self._log = log
        self._emit = emit
        self._socket: socket.socket | None = None
        self._failures = 0
        self._ready_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._settled = asyncio.Event()  # neither loading nor about to be
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[packets.Packet] | None = None

    def start(self) -> None:
        """The preload runs; when it cannot even be started, the state is broken."""
        self._timer = None
        self._settled.clear()
        self.state, self.reason = "loading", "the zygote is still loading"
        ours, theirs = packets.pair()
        packets.bound_sends(ours)
        log = -1
        try:
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            argv = module_argv(self._python, "vllama.host.zygote")
            self._guard.ask({"op": "zygote", "argv": argv, "env": _ENV}, (theirs.fileno(), log))
        except (OSError, LaunchError) as error:
            ours.close()
            self._break(f"the zygote cannot be started: {error}")
            return
        finally:
            theirs.close()
            if log >= 0:
                os.close(log)
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours, self._read)

    def known_as(self, pid: int, start: int) -> None:
        """The guard says which process it is."""
        self.pid, self.start_time = pid, start

    async def wait(self, wait_s: float) -> float:
        """It is ready, or will not be soon; at the latest `wait_s` from now. How long that took; 0 where it is known already."""
        if self._settled.is_set():
            return 0.0
        begun = time.monotonic()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), wait_s)
        return time.monotonic() - begun

    async def fork(
        self, argv: tuple[str, ...], env: Mapping[str, str], folder: str, mark: str, fds: tuple[int, int]
    ) -> tuple[int, int]:
        """Pid and start time of a new keeper, which has the engine forked. Raises CannotFork."""
        async with self._turn:
            if self._socket is None or self.state != "ready":
                raise CannotFork(self.reason)
            self._answer = asyncio.get_running_loop().create_future()
            packet = {"op": "fork", "argv": argv, "env": dict(env), "folder": folder, "mark": mark}
            try:
                packets.send(self._socket, packet, fds)
                answer = await asyncio.wait_for(self._answer, _FORK_TIMEOUT_S)
            except OSError as error:  # TimeoutError is one
                raise CannotFork(f"the zygote does not answer: {str(error) or 'timed out'}") from error
            finally:
                self._answer = None
        if reason := answer.get("refused"):
            if "CUDA" in reason:
                self._break(reason)
            raise CannotFork(reason)
        return answer["keeper"], answer["start"]

    def stop(self, reason: str) -> None:
        """The zygote sees its socket end, and no other is started until `start`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hang_up(reason)
        self.state, self.reason = "off", reason
        self._settled.set()

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            packet, fds = packets.receive(self._socket, wait=False)
        except BlockingIOError:
            return
        for fd in fds:
            os.close(fd)
        if packet is None:
            self._lost()
        elif "ready" in packet:
            self._ready_at = asyncio.get_running_loop().time()
            self.state, self.reason = "ready", ""
            self._settled.set()
            self._emit("zygote_ready", f"preloaded in {packet['ready']} s")
        elif "broken" in packet:
            self._hang_up(packet["broken"])
            self._break(packet["broken"])
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(packet)

    def _lost(self) -> None:
        """It died: its engines live on, and another one loads, later each time that one does not even get ready."""
        was_ready = self.state == "ready"
        self._hang_up("the zygote died")
        if was_ready and asyncio.get_running_loop().time() - self._ready_at > _HEALTHY_S:
            self._failures = 0
        self._failures += 1
        if not was_ready and self._failures >= _FAILURES_MAX:
            self._break(f"the zygote died {self._failures} times while loading; see {self._log}")
            return
        self.state, self.reason = "loading", "the zygote died and is being started again"
        self._settled.clear()
        delay_s = min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** (self._failures - 1))
        self._timer = asyncio.get_running_loop().call_later(delay_s, self.start)
        self._emit("zygote_lost", f"the zygote died; another one is started in {delay_s:g} s")

    def _break(self, reason: str) -> None:
        self.state, self.reason = "broken", reason
        self._settled.set()
        self._emit("fork_unavailable", reason)

    def _hang_up(self, reason: str) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        self.pid = self.start_time = 0
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(reason))
