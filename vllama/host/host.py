"""The Host protocol: one machine's processes, memory and model files, as plain data in and out.

Everything that crosses is a frozen dataclass of numbers, strings, tuples and dicts, so that another machine can
stand behind it later. A Host takes no decisions. Bytes are bytes, times are seconds, `launch_id` names one launch of one
engine for ever.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

StartMode = Literal["auto", "fork", "exec"]


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One memory that leases are booked on. `id` is "cpu" or a GPU's UUID; `total_bytes` is already capped by the limit,
    `physical_bytes` is what a GPU has without it (0: the same), of which vLLM takes its share."""

    id: str
    kind: Literal["cpu", "cuda"]
    index: int
    name: str
    total_bytes: int
    physical_bytes: int = 0

    @property
    def whole_bytes(self) -> int:
        return self.physical_bytes or self.total_bytes


@dataclass(frozen=True, slots=True)
class HostInfo:
    """What `info` shows of a host. `start_mode_reason` says why engines are not forked ("" when they are)."""

    id: str
    epoch: str
    devices: tuple[DeviceInfo, ...]
    ram_total_bytes: int
    versions: Mapping[str, str]
    zygote: Literal["off", "loading", "ready", "broken"]
    start_mode_reason: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceSample:
    """Measured now: `free_bytes` is what a new engine could take (never above total), `used_by` maps launch_id to bytes
    of that engine's whole tree (private bytes on CPU), `shared_bytes` is what vllama's own helpers hold (the zygote).
    `estimated`: the driver does not show our processes; `used_by` follows from what changed on the device."""

    id: str
    total_bytes: int
    free_bytes: int
    used_by: Mapping[str, int]
    shared_bytes: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class HostSample:
    """One measurement of every device; `at` is the host's monotonic clock when it was taken."""

    at: float
    devices: tuple[DeviceSample, ...]
    ram_available_bytes: int


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """How to start one engine. `argv` are vLLM's server arguments without --host and --port (the host adds them);
    `env` is laid over the server's environment; `python` is another interpreter ("" = this one; any other is exec only)."""

    launch_id: str
    model: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    python: str = ""
    devices: tuple[str, ...] = ()
    mode: StartMode = "auto"
    port_wanted: int = 0


@dataclass(frozen=True, slots=True)
class ProcInfo:
    """A launched engine. `mode` is what really happened, `mode_reason` why it was not a fork ("" if it was); `waited_s` is how
    long the launch waited for the preload, which serves all engines, before there was anything of this one."""

    launch_id: str
    model: str
    pid: int
    port: int
    log: str
    mode: Literal["fork", "exec"]
    mode_reason: str = ""
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class HostEvent:
    """Something that happened by itself. Kinds: `exited` (an engine's whole tree is gone and reaped: `code` is the exit
    status or minus the signal, `why` one of "", "port", "profiling", "oom", "core", "lost"; `log_tail` its last lines),
    `zygote_ready`, `zygote_lost`, `guard_lost`, `fork_unavailable`, `device_lost`, `device_back` (`detail` says why)."""

    seq: int
    kind: str
    launch_id: str = ""
    code: int | None = None
    why: str = ""
    log_tail: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ReadyState:
    """`ready`: /health answered 200 and the listener belongs to our tree. `exited`: the tree is gone. `waiting`: neither
    yet; `quiet_s` is how long neither the log grew nor CPU time was used."""

    state: Literal["ready", "exited", "waiting"]
    quiet_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An engine's answer to a control call."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """One complete model of the cache. `kind` is chat, embedding, rerank or other, read from its architecture;
    `weights_bytes` is exact, from the files; `float32_bytes` is the part of it stored as float32, which vLLM halves by
    default; `config` is the model's config.json; `problem` is what is wrong with its files ("": nothing that we know of)."""

    id: str
    path: str
    revision: str
    kind: Literal["chat", "embedding", "rerank", "other"]
    architecture: str
    weights_bytes: int
    context_length: int
    config: Mapping[str, object]
    modified_at: float
    float32_bytes: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PullStep:
    """How far a pull is: what happens now, and of the file that it concerns ("": none) how many bytes of how many are there.
    The last step's `status` is "success", with the commit that was pulled, and the one that is served from now on."""

    status: str
    file: str = ""
    digest: str = ""
    total: int = 0
    completed: int = 0
    revision: str = ""
    served: str = ""


class Host(Protocol):
    """One machine. Every call may raise HostUnavailable (outcome unknown: reconcile by `procs`)."""

    @property
    def id(self) -> str: ...

    async def open(self) -> None:
        """Start what the host needs (the guard, the zygote's preload); returns at once, never waits for the preload."""

    async def close(self) -> None:
        """End everything the host started and leave nothing behind: processes, sockets, shared memory."""

    async def describe(self) -> HostInfo: ...

    async def models(self, revisions: Mapping[str, str]) -> tuple[ModelFiles, ...]:
        """The complete models of the cache, scanned off the loop and cached until a directory changes. `revisions`: of these
        models another than main."""

    def pull(self, model: str, revision: str) -> AbstractAsyncContextManager[AsyncIterator[PullStep]]:
        """Bring a model from the hub into the cache, step by step; leaving it ends it, and the next pull goes on from there.
        Raises ModelUnknown, PullFailed."""

    async def remove(self, model: str) -> int:
        """Remove a model's files from the cache: gone from its list at once. The bytes that come free. Raises ModelUnknown."""

    async def sample(self) -> HostSample: ...

    async def weigh(self, launch_id: str) -> Mapping[str, int]:
        """Bytes that this engine's tree takes of each device now: cheaper than a whole sample. Empty when it is gone."""

    async def launch(self, spec: LaunchSpec) -> ProcInfo:
        """Create the process; returns before it is ready. Idempotent on `launch_id`. Raises LaunchError."""

    async def procs(self) -> tuple[ProcInfo, ...]: ...

    async def wait_ready(self, launch_id: str, wait_s: float) -> ReadyState:
        """Long poll: answers as soon as the engine is ready or gone, at the latest after `wait_s`."""

    async def events(self, after: int, wait_s: float) -> tuple[HostEvent, ...]:
        """Long poll: the events with `seq > after`, as soon as there is one, at the latest after `wait_s` (then empty)."""

    async def control(self, launch_id: str, method: str, path: str, body: bytes, timeout_s: float) -> Reply:
        """One HTTP call to the engine's loopback address. Raises HostUnavailable when it does not answer in time."""

    async def logs(self, launch_id: str, offset: int, bytes_max: int) -> bytes: ...

    async def kill(self, launch_id: str, grace_s: float) -> None:
        """End the engine's whole tree: announced SIGTERM, after `grace_s` SIGKILL (0: at once). Idempotent, returns at
        once; the `exited` event follows when the tree is reaped."""
