"""The manager's side of the engine's processes: it asks guard and zygote for engines, and hears of each one's end.

Plain asyncio on the server's loop; imports neither torch nor vllm. Who stands above whom: design/interfaces.md.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vllama.errors import LaunchError
from vllama.host import forkable, packets, proctree
from vllama.host.bootstrap import RUN_DIR, SHM_MARK
from vllama.host.guard_link import Adopted, GuardLink
from vllama.host.order import Order, ProcessEvent, Started
from vllama.host.runfolder import RunFolder, remove_stale, server_folder
from vllama.host.zygote_link import CannotFork, ZygoteLink, ZygoteState

__all__ = ["Order", "ProcessEvent", "Processes", "Started", "ZygoteState"]

PRELOAD_WAIT_S = 60.0
_KEEPER_ANSWER_S = 30.0
_KEEPER_ENDS_S = 5.0  # what a keeper gets to end its tree once its guard is dead
_ADOPT_EVERY_S = 0.05
_PASSES_MAX = 200
_BOOTSTRAP = str(Path(__file__).with_name("bootstrap.py"))

# What every engine runs with, the zygote included, before its first import.
SERVER_ENV = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_SERVER_DEV_MODE": "1",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}
# The keys of vllama are none of an engine's business (it may run a model's own code); its own would lock vllama out.
SECRET_ENV = frozenset({"VLLAMA_API_KEY", "VLLAMA_CONTROL_KEY", "VLLM_API_KEY"})


@dataclass(slots=True, eq=False)
class _Engine:
    """One launch from its first packet to its last. `tree` is what was last seen of it (pid -> start time); `ended` holds
    the end until `launch` has returned."""

    launch_id: str
    status: socket.socket
    folder: RunFolder
    log: str
    born: asyncio.Future[int]
    keeper: tuple[int, int] = (0, 0)
    pid: int = 0
    tree: dict[int, int] = field(default_factory=dict)
    lost: bool = False
    returned: bool = False
    ended: ProcessEvent | None = None


class Processes:
    """Every process of one server below it: the guard, the zygote, and a keeper above each engine.

    `emit` is called on the loop, in order, and must not raise; `exited` comes exactly once for each `launch` that
    returned. `open`, `launch` and `close` are called on the main thread (the death signal belongs to a thread).
    """

    def __init__(
        self,
        emit: Callable[[ProcessEvent], None],
        *,
        preload: bool = True,
        python: str = "",
        zygote_log: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """`preload` False: no zygote is ever started (engine_start = exec, or engine_entry is set). `python` is the
        interpreter of zygote and engines ("" = this one); `env` is laid over this process's environment for all."""
        self._emit_to = emit
        self._preload = preload
        self._python = python or sys.executable
        self._folder = server_folder()
        self._log = zygote_log or Path(self._folder.path, "zygote.log")
        inherited = {name: value for name, value in os.environ.items() if name not in SECRET_ENV}
        self._env = inherited | SERVER_ENV | dict(env or {})
        self._engines: dict[str, _Engine] = {}
        self._sweeps: dict[str, _Engine] = {}
        self._adopted = Adopted()
        self._adopting: asyncio.TimerHandle | None = None
        self._number = 0
        self._closed = True
        self._was_subreaper = False
        self._guard: GuardLink | None = None
        self._zygote: ZygoteLink | None = None

    @property
    def zygote_state(self) -> ZygoteState:
        return self._zygote.state if self._zygote is not None else "off"

    @property
    def zygote_reason(self) -> str:
        """Why engines are not forked, "" when they are."""
        return self._zygote.reason if self._zygote is not None else "the preload is switched off"

    async def open(self) -> None:
        """The guard runs and the zygote loads; what dead servers of this user left behind is removed. Returns at once.
        Raises LaunchError."""
        self._was_subreaper = proctree.is_subreaper()
        proctree.become_subreaper()
        remove_stale()
        try:
            self._folder.create()
        except OSError as error:
            raise LaunchError(f"the run folder {self._folder.path} cannot be made: {error}") from error
        self._closed = False
        self._guard = GuardLink(self._folder, self._env, self._on_guard_packet, self._on_guard_lost)
        if self._preload:
            self._zygote = ZygoteLink(self._guard, self._python, self._log, self._on_zygote)
        self._start_guard()

    async def close(self) -> None:
        """Every process below is killed and reaped, every run folder removed; no event comes after it."""
        if self._closed:
            return
        self._closed = True
        if self._adopting is not None:
            self._adopting.cancel()
        if self._zygote is not None:
            self._adopted.add(self._zygote.pid, self._zygote.start_time)
            self._zygote.stop("the server stops")
        for engine in [*self._engines.values(), *self._sweeps.values()]:
            self._foresee(engine)
            self._hang_up(engine)
        if self._guard is not None:
            await self._guard.close()
        for _ in range(_PASSES_MAX):  # only what lost its guard
            if not self._adopted.end(self._logs()):
                break
            await asyncio.sleep(_ADOPT_EVERY_S)
        self._engines.clear()
        self._sweeps.clear()
        self._folder.remove()
        proctree.become_subreaper(self._was_subreaper)

    async def launch(self, order: Order) -> Started:
        """The engine's process exists. Mode auto waits up to 60 s for a running preload, mode fork as long as it takes
        and never falls back. Raises LaunchError."""
        if self._closed or self._guard is None:
            raise LaunchError("the server's processes are closed: nothing can be started")
        if order.launch_id in self._engines:
            raise LaunchError(f"launch {order.launch_id} exists already")
        self._start_guard()
        reason, waited_s = self._why_exec(order), 0.0
        if not reason and self._zygote is not None:
            waited_s = await self._zygote.wait(PRELOAD_WAIT_S * (1 if order.mode == "auto" else 10))
            try:
                return replace(await self._launch(order, self._zygote), waited_s=waited_s)
            except CannotFork as error:
                reason = str(error)
        if order.mode == "fork":
            raise LaunchError(f"the engine was to be forked, which cannot be done: {reason}")
        return replace(await self._launch(order, None, reason), waited_s=waited_s)

    def kill(self, launch_id: str, grace_s: float) -> None:
        """An announced SIGTERM, SIGKILL after `grace_s` (0: at once). Unknown or gone ids are ignored. Idempotent."""
        engine = self._engines.get(launch_id)
        if engine is None or engine.ended is not None:
            return
        with contextlib.suppress(OSError):  # the keeper is gone: its end is noticed by its socket
            packets.send(engine.status, {"op": "term", "grace_s": grace_s} if grace_s > 0 else {"op": "kill"})

    async def trees(self, launch_ids: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The live processes of each of these engines, its keeper first; () of one that is gone. One look at /proc for all of
        them, in a thread: on a machine with many processes it takes longer than a stream can wait."""
        engines = {name: self._engines.get(name) for name in launch_ids}
        keepers = [engine.keeper for engine in engines.values() if engine is not None]
        found = await asyncio.to_thread(proctree.families, keepers) if keepers else {}
        trees: dict[str, tuple[int, ...]] = {}
        for name, engine in engines.items():
            below = found.get(engine.keeper) if engine is not None else None
            if engine is None or below is None:
                trees[name] = ()
                continue
            engine.tree |= {proc.pid: proc.start for proc in below}
            trees[name] = (engine.keeper[0], *(proc.pid for proc in below))
        return trees

    async def tree(self, launch_id: str) -> tuple[int, ...]:
        """As `trees`, of one."""
        return (await self.trees([launch_id]))[launch_id]

    def helper_pids(self) -> tuple[int, ...]:
        """Guard and zygote, as far as they live: what is booked as `shared`."""
        pids = (self._guard.pid if self._guard else 0, self._zygote.pid if self._zygote else 0)
        return tuple(pid for pid in pids if pid)

    # How an engine starts.

    def _why_exec(self, order: Order) -> str:
        if order.mode == "exec":
            return "engine_start is exec"
        if order.entry:
            return "another script than vLLM's server is to run"
        if order.python and os.path.realpath(order.python) != os.path.realpath(self._python):
            return f"its interpreter is {order.python}, the zygote's is {self._python}"
        return forkable.obstacle(order.argv, order.env, self._env) or (
            "" if self._zygote else self.zygote_reason
        )

    def _start_guard(self) -> None:
        assert self._guard is not None
        if self._guard.pid:
            return
        self._guard.start()
        if self._zygote is not None and self._zygote.state == "off":
            self._zygote.start()

    async def _launch(self, order: Order, zygote: ZygoteLink | None, reason: str = "") -> Started:
        loop = asyncio.get_running_loop()
        self._number += 1
        folder = self._folder.launch(self._number)
        python = order.python or self._python
        if not os.access(python, os.X_OK):
            raise LaunchError(f"the interpreter {python} does not exist or cannot be executed")
        try:
            log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LaunchError(f"the log {order.log} cannot be written: {error}") from error
        ours, theirs = packets.pair()
        packets.bound_sends(ours)
        log_seen = os.readlink(f"/proc/self/fd/{log}")  # as /proc will show it of the engine
        engine = _Engine(order.launch_id, ours, folder, log_seen, loop.create_future())
        self._engines[order.launch_id] = engine
        loop.add_reader(ours, self._on_status, engine)
        try:
            fds = (theirs.fileno(), log)
            if zygote is not None:
                engine.keeper = await zygote.fork(order.argv, order.env, folder.path, folder.mark, fds)
            else:
                self._exec(order, python, folder, fds)
            theirs.close()  # else the keeper's death would not be seen
            engine.pid = await asyncio.wait_for(engine.born, _KEEPER_ANSWER_S)
        except (TimeoutError, ConnectionError) as error:
            self._abandon(engine)
            what = f"its keeper did not come up: {str(error) or 'timed out'}"
            raise (CannotFork(what) if zygote is not None else LaunchError(what)) from error
        except BaseException:
            self._abandon(engine)
            raise
        finally:
            theirs.close()
            os.close(log)
        engine.returned = True
        if engine.ended is not None:
            loop.call_soon(self._report, engine)
        return Started(engine.pid, "exec" if zygote is None else "fork", reason)

    def _exec(self, order: Order, python: str, folder: RunFolder, fds: tuple[int, int]) -> None:
        assert self._guard is not None
        own = {RUN_DIR: folder.path, SHM_MARK: folder.mark, "TMPDIR": folder.path}
        packet = {
            "op": "exec",
            "argv": [python, order.entry or _BOOTSTRAP, *order.argv],
            "env": dict(order.env) | own,
            "folder": folder.path,
            "mark": folder.mark,
        }
        self._guard.ask(packet, fds)

    def _abandon(self, engine: _Engine) -> None:
        """Nobody waits for this engine: its keeper, if it came to be, sees its socket end and ends the tree."""
        self._engines.pop(engine.launch_id, None)
        self._hang_up(engine)

    # How an engine ends.

    def _on_status(self, engine: _Engine) -> None:
        try:
            packet, fds = packets.receive(engine.status, wait=False)
        except BlockingIOError:
            return
        for fd in fds:
            os.close(fd)
        if packet is None:
            self._keeper_lost(engine)
        elif "engine" in packet:
            engine.keeper = (packet["keeper"], packet["keeper_start"])
            engine.tree[packet["engine"]] = packet["start"]
            if not engine.born.done():
                engine.born.set_result(packet["engine"])
        elif "exited" in packet:
            self._hang_up(engine)
            self._end(engine, packet["exited"])

    def _keeper_lost(self, engine: _Engine) -> None:
        """The keeper died by itself; its tree comes to the guard, or to us when there is none."""
        self._hang_up(engine)
        if not engine.born.done():
            engine.born.set_exception(ConnectionError("it died at once"))
            return
        engine.lost = True
        self._sweeps[engine.folder.mark] = engine
        pid, start = engine.keeper
        sweep = {
            "op": "sweep",
            "pid": pid,
            "start": start,
            "folder": engine.folder.path,
            "mark": engine.folder.mark,
        }
        try:
            assert self._guard is not None
            self._guard.ask(sweep)
        except LaunchError:
            self._foresee(engine)
            self._adopt()

    def _on_guard_packet(self, packet: packets.Packet) -> None:
        if "zygote" in packet and self._zygote is not None:
            self._zygote.known_as(packet["zygote"], packet["start"])
        elif "swept" in packet and (engine := self._sweeps.pop(packet["swept"], None)) is not None:
            self._end(engine, -signal.SIGKILL)

    def _on_guard_lost(self, detail: str) -> None:
        """Without a guard nothing may run: the keepers have come to us, as subreaper, and are told to end."""
        self._emit(ProcessEvent("guard_lost", detail=detail))
        if self._zygote is not None:
            self._adopted.add(self._zygote.pid, self._zygote.start_time)
            self._zygote.stop("the guard died")
        for engine in list(self._engines.values()):
            engine.lost = True
            self._foresee(engine)
            self.kill(engine.launch_id, 0)
        self._adopt(asyncio.get_running_loop().time() + _KEEPER_ENDS_S)

    def _foresee(self, engine: _Engine) -> None:
        """These processes may come to us, alive or not; with the log's name that finds what is alive it is all of them."""
        for pid, start in [engine.keeper, *engine.tree.items()]:
            self._adopted.add(pid, start)

    def _adopt(self, deadline: float = 0.0) -> None:
        """What came to us is killed and reaped, again and again until nothing is left; keepers get until `deadline`."""
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        if self._adopting is not None:
            self._adopting.cancel()
            self._adopting = None
        keepers = [engine.keeper for engine in self._engines.values()] if loop.time() < deadline else []
        spare = [
            pid
            for keeper, start in keepers
            if proctree.alive(keeper, start)
            for pid in (keeper, *(proc.pid for proc in proctree.descendants([keeper])))
        ]
        if self._adopted.end(self._logs(), spare=spare):
            self._adopting = loop.call_later(_ADOPT_EVERY_S, self._adopt, deadline)
            return
        waiting, self._sweeps = list(self._sweeps.values()), {}
        for engine in waiting:
            engine.folder.remove()
            self._end(engine, -signal.SIGKILL)

    def _logs(self) -> list[str]:
        """Whose output marks a process as one that lost both its keeper and the guard."""
        return [engine.log for engine in self._engines.values() if engine.lost]

    def _end(self, engine: _Engine, code: int) -> None:
        why = "lost" if engine.lost else ""
        engine.ended = ProcessEvent("exited", engine.launch_id, code, why)
        if engine.returned:
            self._report(engine)

    def _report(self, engine: _Engine) -> None:
        if engine.ended is not None and self._engines.pop(engine.launch_id, None) is not None:
            self._emit(engine.ended)

    def _hang_up(self, engine: _Engine) -> None:
        if engine.status.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(engine.status)
            engine.status.close()

    def _on_zygote(self, kind: str, detail: str) -> None:
        self._emit(ProcessEvent(kind, detail=detail))

    def _emit(self, event: ProcessEvent) -> None:
        if not self._closed:
            self._emit_to(event)
