"""What is asked of `Processes` and what it answers: plain frozen facts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vllama.host.host import StartMode


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
    """A created engine: `pid` of its API server, how it was started, and why not by fork ("" if it was). `waited_s` is how long
    it waited for the zygote's preload first."""

    pid: int
    mode: Literal["fork", "exec"]
    reason: str = ""
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """What happened by itself. `exited`: an engine's whole tree is gone and reaped (`code` is its exit status or minus
    the signal; `why` is "lost" when its guardians died). `zygote_ready`, `zygote_lost`, `fork_unavailable`,
    `guard_lost`: `detail` says more."""

    kind: str
    launch_id: str = ""
    code: int | None = None
    why: str = ""
    detail: str = ""
