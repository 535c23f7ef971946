"""One launch of one engine on this machine: its port, its log, its progress, its end."""

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vllama.host.host import LaunchSpec, ProcInfo
from vllama.host.logs import read_span, size_of, tail
from vllama.host.ports import Reservation

DIAGNOSED_BYTES_MAX = 2**18
LOOK_S_MIN = 0.5
BUSY_SHARE_MIN = 0.05  # of one core
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Launch:
    """`reserved` keeps its port from other vllamas while it lives; `lost_port_at` is since when another program listens
    there. `log_start` is the log's size when this run began: what earlier runs wrote is not this one's."""

    spec: LaunchSpec
    reserved: Reservation
    log: Path
    log_start: int
    proc: ProcInfo | None = None
    was_ready: bool = False
    lost_port_at: float | None = None
    why: str = ""
    kill_grace_s: float | None = None
    created: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    _moved_at: float = field(default_factory=time.monotonic)
    _looked: tuple[float, int, float] = (0.0, 0, 0.0)

    @property
    def port(self) -> int:
        return self.reserved.port

    @property
    def alive(self) -> bool:
        return self.proc is not None and not self.gone.is_set()

    def end(self) -> None:
        """It is gone: whoever waits for it is woken, and its port is anybody's."""
        self.gone.set()
        self.reserved.close()

    def quiet_s(self, pids: Sequence[int]) -> float:
        """How long neither the log grew nor CPU time was used (an idle engine's own upkeep is no progress)."""
        now, size, used = time.monotonic(), size_of(self.log), cpu_s(pids)
        then, size_then, used_then = self._looked
        if now - then >= LOOK_S_MIN:
            self._looked = (now, size, used)
            if size != size_then or used - used_then >= BUSY_SHARE_MIN * (now - then):
                self._moved_at = now
        return now - self._moved_at

    def log_tail(self) -> str:
        return tail(self.log, self.log_start)

    def log_end(self) -> str:
        """The end of what this run wrote, long enough to find why it died."""
        start = max(self.log_start, size_of(self.log) - DIAGNOSED_BYTES_MAX)
        return read_span(self.log, start, DIAGNOSED_BYTES_MAX).decode("utf-8", "replace")


def cpu_s(pids: Sequence[int]) -> float:
    """CPU seconds that these processes have used so far."""
    ticks = 0
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            user, system = fields.rpartition(")")[2].split()[11:13]
            ticks += int(user) + int(system)
    return ticks / _TICKS_PER_S
