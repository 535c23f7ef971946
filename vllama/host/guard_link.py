"""vllama's end of the guard: it is started here, asked here, and replaced as a guardian when it dies.

Called on the loop's (main) thread only. The life pipe's write end lives here and nowhere else.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vllama.errors import LaunchError
from vllama.host import packets, proctree
from vllama.host.runfolder import RunFolder

if TYPE_CHECKING:
    import socket

ROOT = str(Path(__file__).resolve().parents[2])
_ENDS_S = 10.0


def module_argv(python: str, module: str, *flags: str) -> list[str]:
    """How `module` of this package runs in any interpreter, which sees our package's parent last on its path."""
    code = f"import sys; sys.path.append({ROOT!r}); from {module} import main; main()"
    return [python, *flags, "-c", code]


class GuardLink:
    """One guard process at most. `on_packet` gets what it says, `on_lost` is called once when it died by itself."""

    def __init__(
        self,
        folder: RunFolder,
        env: Mapping[str, str],
        on_packet: Callable[[packets.Packet], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._env = dict(env)
        self._on_packet = on_packet
        self._on_lost = on_lost
        self._life_end, self._life = os.pipe()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int:
        """The guard's pid, 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """A guard runs (started now, or already). Raises LaunchError."""
        if self._process is not None:
            return
        ours, theirs = packets.pair()
        # The interpreter is born deaf: no moment in which a Ctrl-C could end it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, proctree.GROUP_SIGNALS)
        fds = (theirs.fileno(), self._life_end)
        words = [str(fd) for fd in fds] + [str(os.getpid()), self._folder.path, self._folder.mark]
        try:
            self._process = subprocess.Popen(
                # -S: no site, no third party; it starts in 20 ms and stays small
                [*module_argv(sys.executable, "vllama.host.guard", "-S", "-E"), *words],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                env=self._env,
            )
        except OSError as error:
            ours.close()
            raise LaunchError(f"the guard process cannot be started: {error}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        self._control = ours
        packets.bound_sends(ours)
        asyncio.get_running_loop().add_reader(ours, self._read)

    def ask(self, packet: packets.Packet, fds: tuple[int, ...] = ()) -> None:
        """The guard has been told. Raises LaunchError."""
        try:
            if self._control is None:
                raise ConnectionError("it is not running")
            packets.send(self._control, packet, fds)
        except OSError as error:
            raise LaunchError(f"the guard cannot be reached: {error}") from error

    def _read(self) -> None:
        if self._control is None:
            return
        try:
            packet, fds = packets.receive(self._control, wait=False)
        except BlockingIOError:
            return
        for fd in fds:
            os.close(fd)
        if packet is not None:
            self._on_packet(packet)
            return
        code = self._forget()
        self._on_lost(f"it ended with code {code}")

    def _forget(self) -> int:
        """The guard is dead and reaped, its socket closed; its exit code."""
        process, control = self._process, self._control
        self._process = self._control = None
        if control is not None:
            asyncio.get_running_loop().remove_reader(control)
            control.close()
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return process.wait(_ENDS_S)

    async def close(self) -> None:
        """The life pipe has ended, and everything that the guard stood above."""
        os.close(self._life)
        os.close(self._life_end)
        if self._process is not None:
            ended = asyncio.Event()
            fd = os.pidfd_open(self._process.pid)  # not reaped yet, so it is surely this one
            asyncio.get_running_loop().add_reader(fd, ended.set)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _ENDS_S)
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
        self._forget()


class Adopted:
    """What came to this process as a child because guard or keeper died: it is killed and reaped, nothing else is.

    This process may have children of its own, so only these are touched: pids named by `add`, and processes whose
    output goes to one of the given logs, with everything below them.
    """

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def add(self, pid: int, start: int) -> None:
        """This process is ours to reap once it is our child and has ended; and to kill by `end`."""
        if pid:
            self._known[pid] = start

    def end(self, logs: Iterable[str], *, spare: Iterable[int] = ()) -> bool:
        """One pass; True while something is left. `spare` are left time to end by themselves."""
        procs = proctree.everyone()
        spared = frozenset(spare)
        mine = proctree.children(os.getpid(), procs)
        wanted = frozenset(logs)
        for proc in mine:
            if proc.ended and proc.comm.startswith(("VLLM::", "engine")):
                self.add(proc.pid, proc.start)
            elif not proc.ended and _output_of(proc.pid) in wanted:
                for one in [proc, *proctree.descendants([proc.pid], procs)]:
                    self.add(one.pid, one.start)
        found = bool(self._known)
        for pid, start in list(self._known.items()):
            known = procs.get(pid)
            if known is None or known.start != start:
                del self._known[pid]
            elif known.ended and known.ppid == os.getpid():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                del self._known[pid]
            elif not known.ended and pid not in spared:
                proctree.send(known, signal.SIGKILL)
        # What ended just now may have left children that come here only then: one more pass.
        return found


def _output_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/1")
    except OSError:
        return ""
