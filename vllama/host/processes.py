"""The manager's side of the engine's processes: it asks guard and zygote for engines, and hears of each one's end.

Plain asyncio on the server's loop; imports neither torch nor vllm. Who stands above whom: design/interfaces.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vllama.host.host import StartMode

ZygoteState = Literal["off", "loading", "ready", "broken"]


@dataclass(frozen=True, slots=True)
class Order:
    """One engine to start. `argv` are vLLM's server arguments with --host and --port; `env` is laid over the server's
    environment; `python` is another interpreter and `entry` another script than bootstrap.py (both: exec only)."""

    launch_id: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    mode: StartMode = "auto"
    python: str = ""
    entry: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """A created engine: `pid` of its API server, how it was started, and why not by fork ("" if it was)."""

    pid: int
    mode: Literal["fork", "exec"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """What happened by itself. `exited`: an engine's whole tree is gone and reaped (`code` is its exit status or minus
    the signal; `why` is "lost" when its guardians died). `zygote_ready`, `zygote_lost`, `fork_unavailable`,
    `guard_lost`: `detail` says more."""

    kind: Literal["exited", "zygote_ready", "zygote_lost", "fork_unavailable", "guard_lost"]
    launch_id: str = ""
    code: int | None = None
    why: str = ""
    detail: str = ""


class Processes:
    """Every process of one server below it: the guard, the zygote, and a keeper above each engine.

    `emit` is called on the loop, in order, and must not raise; `exited` comes exactly once for each `launch` that
    returned. `open`, `launch` and `close` are called on the main thread (the death signal belongs to a thread).
    """

    zygote_state: ZygoteState
    zygote_reason: str  # why engines are not forked, "" when they are

    def __init__(self, emit: Callable[[ProcessEvent], None], *, preload: bool = True) -> None:
        """`preload` False: no zygote is ever started (engine_start = exec, or engine_entry is set)."""

    async def open(self) -> None:
        """The guard runs and the zygote loads; what dead servers of this user left behind is removed. Returns at once."""

    async def close(self) -> None:
        """Every process below is killed and reaped, every run folder removed; no event comes after it."""

    async def launch(self, order: Order) -> Started:
        """The engine's process exists. Waits up to 60 s for a running preload in mode auto or fork. Raises LaunchError."""
        raise NotImplementedError

    def kill(self, launch_id: str, grace_s: float) -> None:
        """An announced SIGTERM, SIGKILL after `grace_s` (0: at once). Unknown or gone ids are ignored. Idempotent."""

    def tree_pids(self, launch_id: str) -> tuple[int, ...]:
        """The live processes of the engine, its keeper included; () when it is gone. Reads /proc (about 1 ms)."""
        return ()

    def helper_pids(self) -> tuple[int, ...]:
        """Guard and zygote, as far as they live: what is booked as `shared`."""
        return ()
