"""The worker processes of `vllama serve --workers N`, as processes: started, seen to die, killed. They never outlive us.

A worker is a child of the server in its process group. It is named as a helper of ours, deaf to what a terminal or a service
manager sends to the group, and ends with the server: by the end of its socket, and by the kernel's parent-death signal.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping

from vllama.errors import LaunchError
from vllama.host import proctree
from vllama.host.guard_link import module_argv


class WorkerProcess:
    """One worker process. `exited` is set in the turn in which it is reaped; `code` is then its exit status."""

    def __init__(
        self, module: str, link: socket.socket, listener: socket.socket, env: Mapping[str, str]
    ) -> None:
        """Started, with both sockets inherited. Raises LaunchError. Call on the loop's thread."""
        self.exited = asyncio.Event()
        self.code: int | None = None
        fds = (link.fileno(), listener.fileno())
        words = [str(number) for number in (*fds, os.getpid())]
        # The interpreter is born deaf: no moment in which a Ctrl-C could end it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, proctree.GROUP_SIGNALS)
        try:
            self._process = subprocess.Popen(
                [*module_argv(sys.executable, module), *words],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                env=dict(env),
            )
        except OSError as error:
            raise LaunchError(f"a worker process cannot be started: {error}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)  # readable when it has ended
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._ended)

    def kill(self) -> None:
        """It ends at once; `exited` follows."""
        if self.code is None:
            self._process.kill()

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.code = self._process.wait()
        self.exited.set()


def become_worker(parent: int) -> None:
    """Called first in a worker's own process: it has its name, ends with the server, and hears no signal of the group."""
    proctree.set_name(f"{proctree.OURS}worker")
    proctree.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we could ask to be told
        os._exit(0)
    for number in proctree.GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, proctree.GROUP_SIGNALS)
