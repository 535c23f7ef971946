"""CPU time of processes, in nanoseconds, threads that live included."""

import os
from collections.abc import Iterable
from pathlib import Path

TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


def cpu_ns(pids: Iterable[int]) -> int:
    """The CPU that these processes have had. From schedstat, which counts nanoseconds; where the kernel has none, from stat,
    which counts ticks."""
    return sum(_of_process(pid) for pid in pids)


def _of_process(pid: int) -> int:
    try:
        return sum(
            int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_bytes().split()[0])
            for thread in os.listdir(f"/proc/{pid}/task")
        )
    except FileNotFoundError:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_NS


def pin(pid: int, cores: set[int]) -> None:
    """Every thread of the process runs on these cores only."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), cores)
