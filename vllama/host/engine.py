"""The control side of one engine: ready, warm-up, sleep and wake recipes, each step timed, through a Host.

A recipe either does all of it or raises EngineFault; a faulted engine is killed, never tried again (its
memory may be half mapped). Nothing here decides when to sleep or wake.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

from vllama.errors import HostUnavailable
from vllama.host.host import Host, ModelFiles, Reply
from vllama.host.probe import Reference, mismatch, probe_calls, read_reference

READY_POLL_S = 10.0
CHECK_TIMEOUT_S = 30.0


class EngineFault(Exception):
    """The engine did not do what it was asked to. `reason`, one line: `exited`, `probe mismatch ...`, ..."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Engine:
    """One launched engine. `served_name` is what it calls its model (by default the model's id)."""

    def __init__(self, host: Host, launch_id: str, files: ModelFiles, served_name: str = "") -> None:
        self.host = host
        self.launch_id = launch_id
        self.files = files
        self.served_name = served_name or files.id
        self.reference: Reference | None = None
        self._steps: dict[str, float] = {}
        self._deadline = 0.0

    async def ready(self, timeout_s: float, quiet_s: float) -> dict[str, float]:
        """Serves /health from our own tree. Faults: `exited`, `start timeout ...`, `start quiet ...`."""
        self._begin(timeout_s)
        with self._step("ready"):
            while True:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    raise EngineFault(f"start timeout: not ready after {timeout_s:g} s")
                try:
                    state = await self.host.wait_ready(self.launch_id, min(left, READY_POLL_S))
                except HostUnavailable as error:
                    raise EngineFault(f"host unavailable while starting: {error.message}") from error
                if state.state == "ready":
                    break
                if state.state == "exited":
                    raise EngineFault("exited")
                if state.quiet_s >= quiet_s:
                    raise EngineFault(
                        f"start quiet: neither log nor CPU time moved for {state.quiet_s:.0f} s"
                    )
        return self._steps

    async def warm_up(self, timeout_s: float = 120.0) -> dict[str, float]:
        """The first request, part of the start; its answer is the reference for every later wake's probe."""
        self._begin(timeout_s)
        with self._step("warm_up"):
            self.reference = await self._probe()
        return self._steps

    async def sleep(self, level: int, timeout_s: float) -> dict[str, float]:
        """The engine sleeps at `level`, 1 or 2, and lives. Its 200 is not believed: the dying say it too."""
        self._begin(timeout_s)
        await self._call("sleep", "POST", f"/sleep?{urlencode({'level': level})}")
        await self._expect_sleeping(True)
        await self._call("health", "GET", "/health", CHECK_TIMEOUT_S)
        return self._steps

    async def wake(self, level: int, timeout_s: float) -> dict[str, float]:
        """The engine is awake from `level` and answers the probe as it did after its start."""
        self._begin(timeout_s)
        if level == 2:
            await self._call("wake_weights", "POST", "/wake_up?tags=weights")
            rpc = json.dumps({"method": "reload_weights"}).encode()
            await self._call("reload_weights", "POST", "/collective_rpc", body=rpc)
            await self._call("wake_kv_cache", "POST", "/wake_up?tags=kv_cache")
        else:
            await self._call("wake", "POST", "/wake_up")
        await self._expect_sleeping(False)
        await self._call("reset_prefix_cache", "POST", "/reset_prefix_cache")
        with self._step("probe"):
            answer = await self._probe()
        if self.reference is not None and (difference := mismatch(self.reference, answer)):
            raise EngineFault(f"probe mismatch after level-{level} wake: {difference}")
        return self._steps

    async def _expect_sleeping(self, wanted: bool) -> None:
        reply = await self._call("is_sleeping", "GET", "/is_sleeping", CHECK_TIMEOUT_S)
        try:
            sleeping = json.loads(reply.body)["is_sleeping"]
        except (ValueError, TypeError, KeyError) as error:
            raise EngineFault(f"/is_sleeping answered {reply.body[:200]!r}") from error
        if sleeping is not wanted:
            raise EngineFault("still awake after /sleep" if wanted else "still asleep after /wake_up")

    async def _probe(self) -> Reference | None:
        """The first of the kind's probe calls that this engine knows; None for a kind that has none."""
        calls = probe_calls(self.files.kind, self.served_name)
        for index, (path, body) in enumerate(calls):
            reply = await self._send("POST", path, json.dumps(body).encode(), None)
            if reply.status in (404, 405, 501) and index + 1 < len(calls):
                continue
            if reply.status != 200:
                raise EngineFault(f"probe {path} answered {reply.status}: {_excerpt(reply)}")
            try:
                return read_reference(path, json.loads(reply.body))
            except (ValueError, TypeError, KeyError, IndexError) as error:
                raise EngineFault(f"probe {path} answered nonsense: {_excerpt(reply)}") from error
        return None

    async def _call(
        self, step: str, method: str, path: str, timeout_s: float | None = None, body: bytes = b""
    ) -> Reply:
        """One control call that must answer 200, as the step `step` of the running recipe."""
        with self._step(step):
            reply = await self._send(method, path, body, timeout_s)
        if reply.status != 200:
            raise EngineFault(f"{method} {path} answered {reply.status}: {_excerpt(reply)}")
        return reply

    async def _send(self, method: str, path: str, body: bytes, timeout_s: float | None) -> Reply:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise EngineFault(f"deadline passed before {method} {path}")
        bound = left if timeout_s is None else min(left, timeout_s)
        try:
            return await self.host.control(self.launch_id, method, path, body, bound)
        except HostUnavailable as error:
            raise EngineFault(f"no answer to {method} {path}: {error.message}") from error

    def _begin(self, timeout_s: float) -> None:
        self._steps = {}
        self._deadline = time.monotonic() + timeout_s

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """Books the seconds of one step, of a failed one too."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._steps[name] = round(self._steps.get(name, 0.0) + time.monotonic() - begun, 4)


def _excerpt(reply: Reply) -> str:
    return reply.body[:300].decode("utf-8", "replace")
