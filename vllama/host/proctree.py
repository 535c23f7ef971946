"""Processes of this machine as /proc shows them: who descends from whom, and how a whole tree is ended and reaped.

Standard library only, and quick to import: guard and keepers are made of it. A process is known by pid and start time,
because a pid alone may by now belong to a stranger.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 1, 15, 36, 37
_libc = ctypes.CDLL(None, use_errno=True)

# What a terminal, systemd or `timeout` sends to a whole group: our helpers end by their pipes instead.
GROUP_SIGNALS = frozenset({signal.SIGINT, signal.SIGHUP, signal.SIGTERM})
OURS = "vllama-"  # the name (comm) of every helper begins so; no engine's does


@dataclass(frozen=True, slots=True)
class Proc:
    """One process at one moment. `start` is in clock ticks since boot."""

    pid: int
    ppid: int
    start: int
    state: str
    comm: str

    @property
    def ended(self) -> bool:
        return self.state in "ZX"


def _prctl(option: int, value: int | bytes) -> None:
    word = ctypes.c_ulong(value) if isinstance(value, int) else value  # a plain int would be cut to 32 bits
    if _libc.prctl(option, word, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")


def become_subreaper(on: bool = True) -> None:
    """From now on orphans among this process's descendants become its children (or no longer do)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(on))


def is_subreaper() -> bool:
    """Orphans among this process's descendants become its children."""
    answer = ctypes.c_int()
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(answer))
    return bool(answer.value)


def set_name(name: str) -> None:
    """This process's comm is `name` (at most 15 bytes are kept)."""
    _prctl(_PR_SET_NAME, name.encode()[:15])


def die_with_parent(signum: int) -> None:
    """`signum` comes when the thread that created this process ends."""
    _prctl(_PR_SET_PDEATHSIG, signum)


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode(errors="replace")


def look(pid: int) -> Proc | None:
    """The process as it is now, None when there is none."""
    try:
        text = _read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may hold spaces and brackets: it ends at the last one.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Proc(pid, int(fields[1]), int(fields[19]), fields[0], head.partition("(")[2])


def start_time(pid: int) -> int:
    """The start time of a live process, 0 when there is none."""
    proc = look(pid)
    return proc.start if proc is not None else 0


def alive(pid: int, start: int) -> bool:
    """The very process runs still (a zombie does not)."""
    proc = look(pid)
    return proc is not None and proc.start == start and not proc.ended


def everyone() -> dict[int, Proc]:
    """Every process that /proc shows, by pid."""
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {proc.pid: proc for proc in found if proc is not None}


def children(pid: int, procs: dict[int, Proc] | None = None) -> list[Proc]:
    """The children of `pid`, zombies included."""
    if procs is None:
        with contextlib.suppress(FileNotFoundError):  # a kernel without CONFIG_PROC_CHILDREN
            pids = [
                kid
                for task in os.listdir(f"/proc/{pid}/task")
                for kid in _read(f"/proc/{pid}/task/{task}/children").split()
            ]
            return [proc for kid in pids if (proc := look(int(kid))) is not None]
        procs = everyone()
    return [proc for proc in procs.values() if proc.ppid == pid]


def descendants(roots: Iterable[int], procs: dict[int, Proc] | None = None) -> list[Proc]:
    """Everything below `roots` (not themselves), parents before children."""
    return _below(roots, _by_parent(everyone() if procs is None else procs))


def families(roots: Iterable[tuple[int, int]]) -> dict[tuple[int, int], list[Proc]]:
    """What lives below each of these processes (pid, start time), none of which is below another; one that has ended is left
    out. However many they are, /proc is read once."""
    procs = everyone()
    kids = _by_parent(procs)
    found: dict[tuple[int, int], list[Proc]] = {}
    for pid, start in roots:
        root = procs.get(pid)
        if root is not None and root.start == start and not root.ended:
            found[pid, start] = [proc for proc in _below([pid], kids) if not proc.ended]
    return found


def _by_parent(procs: dict[int, Proc]) -> dict[int, list[Proc]]:
    kids: dict[int, list[Proc]] = {}
    for proc in procs.values():
        kids.setdefault(proc.ppid, []).append(proc)
    return kids


def _below(roots: Iterable[int], kids: dict[int, list[Proc]]) -> list[Proc]:
    """Takes what it finds out of `kids`: a pid that is its own ancestor by now is not followed for ever."""
    found: list[Proc] = []
    queue = list(roots)
    while queue:
        new = kids.pop(queue.pop(), [])
        found += new
        queue += [kid.pid for kid in new]
    return found


def send(proc: Proc, signum: int) -> None:
    """`signum` reaches this very process or nobody."""
    try:
        fd = os.pidfd_open(proc.pid)
    except ProcessLookupError:
        return
    try:
        # The descriptor pins the process: if the start time is still right now, it is right when the signal goes.
        if start_time(proc.pid) == proc.start:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signum)
    finally:
        os.close(fd)


def reap() -> dict[int, int]:
    """Every child that has ended is reaped: pid -> exit status, or minus the signal."""
    codes: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return codes
        if pid == 0:
            return codes
        codes[pid] = os.waitstatus_to_exitcode(status)


def has_children() -> bool:
    """This process has a child, alive or not yet reaped."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_all(codes: dict[int, int] | None = None) -> dict[int, int]:
    """No descendant of this process is left, alive or zombie. It must be a subreaper: then what forks while it is being
    killed comes back here as a child. Waits as long as the kernel takes. Returns every code reaped."""
    codes = {} if codes is None else codes
    while True:
        for proc in descendants([os.getpid()]):
            if not proc.ended:
                send(proc, signal.SIGKILL)
        codes |= reap()
        if not has_children():
            return codes
        time.sleep(0.005)


def end_orphans(spare: Iterable[int] = ()) -> dict[int, int]:
    """One pass: each child of this process that is no helper of ours lost its keeper; its tree is killed, and what has
    ended is reaped. Returns the codes reaped; call again while `orphans` finds any."""
    roots = orphans(spare)
    for proc in [*roots, *(descendants([proc.pid for proc in roots]) if roots else [])]:
        if not proc.ended:
            send(proc, signal.SIGKILL)
    return reap()


def orphans(spare: Iterable[int] = ()) -> list[Proc]:
    """The children of this process that no helper of ours is, zombies included."""
    spared = frozenset(spare)
    return [
        proc for proc in children(os.getpid()) if not proc.comm.startswith(OURS) and proc.pid not in spared
    ]
