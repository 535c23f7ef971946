"""The guard: no process of ours outlives vllama, whatever kills vllama.

Standard library only, one thread, one loop. It is started by vllama's main thread as a plain small interpreter, stands
above the zygote and all keepers, and adopts what a killed one of them leaves. Its control socket to vllama carries one
JSON object a packet; the end of the life pipe (only vllama holds the other end) means that vllama is dead.

    {"op": "zygote", "argv", "env"} + [socket, log]   -> {"zygote": pid, "start"}; later {"ended": pid, "code"}
    {"op": "exec", "argv", "env", "folder", "mark"} + [status, log]        a keeper answers on the status socket
    {"op": "sweep", "pid", "start", "folder", "mark"} -> {"swept": mark} when nothing is left of that dead keeper
"""

import contextlib
import os
import select
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import NoReturn

from vllama.host import packets, proctree
from vllama.host.keeper import Charge, fork_keeper, leave
from vllama.host.runfolder import RunFolder

_LOOK_MS = 2000  # how soon orphans are found that nobody told us of
_SOON_MS = 10  # while something is known to be ending


@dataclass(slots=True)
class _Guard:
    """All that a guard knows."""

    control: socket.socket
    life: int
    server: int
    folder: RunFolder
    alarm: int
    trigger: int
    zygotes: set[int] = field(default_factory=set)
    sweeps: list[packets.Packet] = field(default_factory=list)

    def run(self) -> NoReturn:
        """Ends when vllama does, and everything below with it."""
        poll = select.poll()
        for fd in (self.control.fileno(), self.life, self.alarm):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(_SOON_MS if self.sweeps else _LOOK_MS)}
            if self.alarm in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.alarm, 4096)
            # The parent is looked at too: someone may have inherited the life pipe by mistake.
            if self.life in ready or os.getppid() != self.server:
                self._end()
            self._look_after()
            if self.control.fileno() in ready:
                packet, fds = packets.receive(self.control)
                if packet is None:
                    self._end()
                self._obey(packet, fds)

    def _end(self) -> NoReturn:
        proctree.end_all()
        self.folder.remove()
        os._exit(0)

    def _look_after(self) -> None:
        """The dead are reaped, the orphans ended, and who asked is told."""
        for pid, code in proctree.end_orphans(self.zygotes).items():
            if pid in self.zygotes:
                self.zygotes.discard(pid)
                self._say({"ended": pid, "code": code})
        waiting, self.sweeps = self.sweeps, []
        for sweep in waiting:
            # Its orphans come here at the moment it ends, not before.
            if proctree.alive(sweep["pid"], sweep["start"]) or proctree.orphans(self.zygotes):
                self.sweeps.append(sweep)
            else:
                RunFolder(sweep["folder"], sweep["mark"]).remove()
                self._say({"swept": sweep["mark"]})

    def _obey(self, packet: packets.Packet, fds: list[int]) -> None:
        match packet["op"]:
            case "zygote":
                pid = self._start_zygote(packet, *fds)
                self.zygotes.add(pid)
                self._say({"zygote": pid, "start": proctree.start_time(pid)})
            case "exec":
                self._start_keeper(packet, *fds)
            case "sweep":
                self.sweeps.append(packet)
        for fd in fds:
            os.close(fd)

    def _start_zygote(self, packet: packets.Packet, sock: int, log: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            proctree.set_name(f"{proctree.OURS}zygote")
            proctree.die_with_parent(signal.SIGKILL)  # without a guard above it, it must not start engines
            self._forget_alarm()
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.set_inheritable(sock, True)
            os.set_inheritable(self.life, True)
            argv = [*packet["argv"], str(sock), str(self.life)]
            os.execve(argv[0], argv, os.environ | packet["env"])
        finally:
            leave(70)

    def _start_keeper(self, packet: packets.Packet, status: int, log: int) -> None:
        charge = Charge(
            socket.socket(fileno=os.dup(status)), self.life, log, RunFolder(packet["folder"], packet["mark"])
        )
        env = os.environ | packet["env"]

        def execute(_: object) -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            # The mask of SIGINT and SIGHUP stays across exec and fork, whatever handlers the engine installs.
            os.execve(packet["argv"][0], packet["argv"], env)

        try:
            fork_keeper(charge, (self.control.fileno(), self.alarm, self.trigger, status), execute)
        finally:
            charge.status.close()

    def _forget_alarm(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _say(self, packet: packets.Packet) -> None:
        with contextlib.suppress(OSError):  # vllama is gone: the life pipe says so too
            packets.send(self.control, packet)


def main() -> NoReturn:
    """`guard CONTROL_FD LIFE_FD SERVER_PID FOLDER MARK`, started with the group's signals blocked."""
    control, life, server = (int(word) for word in sys.argv[1:4])
    proctree.set_name(f"{proctree.OURS}guard")
    proctree.become_subreaper()
    signal.pthread_sigmask(signal.SIG_BLOCK, proctree.GROUP_SIGNALS)
    alarm, trigger = os.pipe()
    os.set_blocking(trigger, False)
    os.set_blocking(alarm, False)
    for signum in (signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(signum, lambda *_: None)
    signal.set_wakeup_fd(trigger, warn_on_full_buffer=False)
    proctree.die_with_parent(signal.SIGUSR1)  # only wakes the loop, which looks at its parent
    sock = socket.socket(fileno=control)
    sock.set_inheritable(False)
    os.set_inheritable(life, False)
    _Guard(sock, life, server, RunFolder(sys.argv[4], sys.argv[5]), alarm, trigger).run()
