"""The keeper: one process above each engine, which knows when the engine's tree has ended and leaves nothing of it.

Standard library only. It is forked from the zygote (then its child runs vLLM in the same memory) or from the guard (then
its child executes an engine), and is a child subreaper: whatever the engine's processes lose comes to it. Its status
socket to vllama carries one JSON object a packet: `engine` and `exited` up, `term` and `kill` down.
"""

import contextlib
import mmap
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from vllama.host import packets, proctree
from vllama.host.runfolder import RunFolder

ANNOUNCED = b"\x01"


@dataclass(frozen=True, slots=True)
class Charge:
    """What a keeper is given: the status socket, the read end of the life pipe (its end is vllama's death), the log for
    the engine's stdout and stderr, and the names that are this launch's own."""

    status: socket.socket
    life: int
    log: int
    folder: RunFolder


def fork_keeper(charge: Charge, inherited: tuple[int, ...], engine: Callable[[mmap.mmap], object]) -> int:
    """A keeper of its own process runs `engine(announced)` in a child; its pid. `inherited` are the descriptors of the
    parent that neither of them may hold (the parent's end would go unnoticed). `engine` need not return or exit itself.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        proctree.set_name(f"{proctree.OURS}keeper")
        signal.pthread_sigmask(signal.SIG_BLOCK, proctree.GROUP_SIGNALS)
        for fd in inherited:
            os.close(fd)
        _Keeper(charge).run(engine)
    finally:
        leave(70)


def leave(code: int) -> NoReturn:
    """This process ends here, whatever else it holds: threads, handlers, a parent's stack. A passing error is printed."""
    if sys.exception() is not None:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


class _Keeper:
    """The keeper's own process, from its first line to its last."""

    def __init__(self, charge: Charge) -> None:
        self._charge = charge
        self._announced = mmap.mmap(-1, 1)  # shared with every process that the engine forks
        self._pid = 0
        self._code: int | None = None
        self._deadline: float | None = None

    def run(self, engine: Callable[[mmap.mmap], object]) -> NoReturn:
        """Ends when the engine's whole tree is gone, or vllama is."""
        proctree.become_subreaper()
        ended = _child_alarm()
        self._charge.folder.create()
        self._pid = os.fork()
        if self._pid == 0:
            self._become_engine(engine, ended)
        os.close(self._charge.log)
        me, start = os.getpid(), proctree.start_time(self._pid)
        born = {"engine": self._pid, "start": start, "keeper": me, "keeper_start": proctree.start_time(me)}
        self._say(born)
        poll = select.poll()
        for fd in (self._charge.status.fileno(), self._charge.life, ended):
            poll.register(fd, select.POLLIN)
        while self._code is None:
            ready = {fd for fd, _ in poll.poll(self._left_ms())}
            if ended in ready:
                os.read(ended, 4096)
            self._note(proctree.reap())
            if self._charge.life in ready or (self._deadline is not None and self._left_ms() == 0):
                self._note(proctree.end_all())
            elif self._charge.status.fileno() in ready:
                self._obey()
        proctree.end_all()
        self._charge.folder.remove()
        self._say({"exited": self._code})
        os._exit(0)

    def _become_engine(self, engine: Callable[[mmap.mmap], object], ended: int) -> NoReturn:
        """The API server's process: named as no helper is, deaf to the terminal, its output in the log."""
        try:
            proctree.set_name("engine")
            # A belt: with its keeper an engine has lost whoever could report and clean up after it.
            proctree.die_with_parent(signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(self._charge.log, 1)
            os.dup2(self._charge.log, 2)
            for fd in (self._charge.log, self._charge.status.fileno(), self._charge.life, ended):
                os.close(fd)
            engine(self._announced)
        finally:
            leave(70)

    def _obey(self) -> None:
        packet, fds = packets.receive(self._charge.status)
        for fd in fds:
            os.close(fd)
        if packet is None or packet["op"] == "kill":
            self._note(proctree.end_all())  # with nobody to report to, an engine has no use
        elif packet["op"] == "term":
            self._announced[:1] = ANNOUNCED
            proc = proctree.look(self._pid)
            if proc is not None and not proc.ended:
                proctree.send(proc, signal.SIGTERM)
            self._deadline = min(self._deadline or float("inf"), time.monotonic() + packet["grace_s"])

    def _note(self, codes: dict[int, int]) -> None:
        if self._pid in codes:
            self._code = codes[self._pid]

    def _left_ms(self) -> int | None:
        if self._deadline is None:
            return None
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def _say(self, packet: packets.Packet) -> None:
        with contextlib.suppress(OSError):  # vllama is gone: the life pipe says so too
            packets.send(self._charge.status, packet)


def _child_alarm() -> int:
    """A descriptor that becomes readable when a child ends."""
    alarm, trigger = os.pipe()
    os.set_blocking(trigger, False)
    os.set_blocking(alarm, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(trigger, warn_on_full_buffer=False)
    return alarm
