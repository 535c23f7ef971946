"""Memories that leases are booked on, behind one protocol. Here: the machine's RAM, counted in private bytes.

RSS would count what forked engines share with the zygote once for each of them; private bytes are what comes back when
the process goes. What is shared is the zygote's: of the helpers all anonymous memory counts, for its private bytes turn
into shared ones with the first fork and back with the last engine. Synchronous: the caller runs it in a thread.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from vllama.host.host import DeviceInfo, DeviceSample

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
RESERVE_BYTES = 512 * 2**20  # left to the rest of the machine when no limit is set
_ANONYMOUS = ("Anonymous:", "Swap:")
_PRIVATE = ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:", "Swap:")


class Device(Protocol):
    """One memory: what it is, and how much of it is used by whom now."""

    @property
    def info(self) -> DeviceInfo: ...

    def sample(self, trees: Mapping[str, Sequence[int]], helpers: Sequence[int]) -> DeviceSample:
        """Measured now. `trees` are the processes of each launch, `helpers` vllama's own beside them."""


class RamDevice:
    """The machine's RAM as the device "cpu", capped by the memory limit and by the container's."""

    def __init__(self, limit_bytes: int | None) -> None:
        total = ram_total_bytes()
        room = max(total - RESERVE_BYTES, total // 2)
        self._info = DeviceInfo("cpu", "cpu", 0, "CPU RAM", min(room, limit_bytes or room))

    @property
    def info(self) -> DeviceInfo:
        return self._info

    def sample(self, trees: Mapping[str, Sequence[int]], helpers: Sequence[int]) -> DeviceSample:
        used = {launch_id: private_bytes_of(pids) for launch_id, pids in trees.items()}
        shared = anonymous_bytes_of(helpers)
        total = self._info.total_bytes
        free = min(total - shared - sum(used.values()), ram_available_bytes())
        return DeviceSample("cpu", total, max(free, 0), used, shared)


def private_bytes_of(pids: Sequence[int]) -> int:
    """Private bytes, swapped ones too, of these processes together; one that is gone counts nothing."""
    return sum(_rollup(pid, _PRIVATE) for pid in pids)


def anonymous_bytes_of(pids: Sequence[int]) -> int:
    """What these processes hold themselves, shared with their forks or not, each page that no file backs."""
    return sum(_rollup(pid, _ANONYMOUS) for pid in pids)


def _rollup(pid: int, fields: tuple[str, ...]) -> int:
    total = 0
    with suppress(OSError, ValueError):  # it may vanish between its listing and any line of this file
        for line in (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith(fields):
                total += int(line.split()[1]) * 1024
    return total


def ram_total_bytes() -> int:
    """What the machine has, or the container that we run in."""
    total = _meminfo("MemTotal:")
    return min(total, cgroup_limit_bytes() or total)


def ram_available_bytes() -> int:
    """What could be taken without swapping, the container's own limit included."""
    available = _meminfo("MemAvailable:")
    limit = cgroup_limit_bytes()
    if limit is None:
        return available
    used = _cgroup_number("memory.current") or 0
    return max(min(available, limit - used + _cgroup_reclaimable_bytes()), 0)


def cgroup_limit_bytes() -> int | None:
    """The memory limit of the container that we run in, None when there is none (cgroup v2)."""
    return _cgroup_number("memory.max")


def _cgroup_number(name: str) -> int | None:
    try:
        return int((CGROUP / name).read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max", another version, or the root group: no limit that we could read
        return None


def _cgroup_reclaimable_bytes() -> int:
    with suppress(OSError, ValueError):
        for line in (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == "inactive_file":
                return int(value)
    return 0


def _meminfo(key: str) -> int:
    for line in (PROC / "meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0
