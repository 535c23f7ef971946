"""The fake engine's inside: memory that is really taken, sleep as vLLM does it, generations that a test can hold back."""

import asyncio
import mmap
import os
import signal
import sys
from collections import Counter
from contextlib import contextmanager

from fake_cuda import Cuda, GpuBlock, OutOfMemory
from fake_faults import Faults
from fake_http import HttpError

TAGS = frozenset({"weights", "kv_cache"})


class Block:
    """Anonymous memory, every page of it taken: private bytes that a measurement sees."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._map: mmap.mmap | None = None
        self.take()

    @property
    def held(self) -> bool:
        return self._map is not None

    def take(self) -> None:
        if self._map is None and self._size > 0:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
            self._map = mmap.mmap(-1, self._size, flags=flags)

    def free(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None


class Gates:
    """Places where generations wait, by name. A permit lets one token pass; an open gate lets all pass."""

    def __init__(self) -> None:
        self._permits: Counter[str] = Counter()
        self._open: set[str] = set()
        self._waiting: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def let(self, name: str, tokens: int | None) -> None:
        if tokens is None:
            self._open.add(name)
        else:
            self._permits[name] += tokens
        self._news()

    async def passing(self, name: str) -> None:
        self._waiting[name] += 1
        self._news()
        try:
            while name not in self._open and self._permits[name] <= 0:
                await self._changed.wait()
            self._permits[name] -= name not in self._open
        finally:
            self._waiting[name] -= 1

    async def until_waiting(self, name: str, count: int) -> None:
        while self._waiting[name] < count:
            await self._changed.wait()

    def _news(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Engine:
    def __init__(
        self, faults: Faults, cuda: Cuda, weights: Block | GpuBlock, kv_cache: Block | GpuBlock
    ) -> None:
        self.faults, self.cuda = faults, cuda
        self.weights, self.kv_cache = weights, kv_cache
        self.leaks: list[Block | GpuBlock] = []
        self.asleep: set[str] = set()
        self.paused = False
        self.weights_good = True
        self.running = 0
        self.counts: Counter[str] = Counter()
        self.gates = Gates()
        self._awake = asyncio.Event()
        self._awake.set()

    @property
    def salt(self) -> str:
        """What the answers depend on besides the question: "" while the weights are whole."""
        return "" if self.weights_good else "garbage"

    @property
    def is_sleeping(self) -> bool:
        return self.paused or bool(self.asleep)

    @contextmanager
    def request(self):
        """One generation, counted; a hang-up aborts it."""
        self.counts["requests"] += 1
        self.running += 1
        self.counts["running_max"] = max(self.counts["running_max"], self.running)
        try:
            yield
            self.counts["completed"] += 1
        except asyncio.CancelledError:
            self.counts["aborted"] += 1
            raise
        finally:
            self.running -= 1

    async def admitted(self) -> None:
        """Awake. A request sent to a sleeper waits here, for ever if nobody wakes it (or kills it)."""
        if self.is_sleeping:
            self.counts["requests_while_asleep"] += 1
            if self.faults("crash_on_request_asleep"):
                die("request to a sleeping engine")
        while self.is_sleeping:
            await self._awake.wait()
        if self.faults("die_on_first_request"):
            die("Unsupported CPU attention configuration")

    async def token(self, gate: str) -> None:
        """The time that one token takes."""
        if pause := self.faults("token_s"):
            await asyncio.sleep(pause)
        if gate or self.faults("gated"):
            await self.gates.passing(gate or "all")

    async def scraped(self) -> None:
        """Somebody asks for the figures: vLLM gives them asleep, too, so that only a count can tell."""
        self.counts["scrapes"] += 1
        self.counts["scrapes_while_asleep"] += self.is_sleeping
        try:
            if self.faults("gated_metrics"):
                await self.gates.passing("metrics")
        except asyncio.CancelledError:
            self.counts["scrapes_cut"] += 1
            raise

    async def sleep(self, level: int) -> None:
        if self.faults("fail_sleep"):
            raise HttpError(500, "sleep failed")
        if not self.cuda.sleeps:
            raise HttpError(500, "Sleep mode is not enabled. Please set enable_sleep_mode=True.")
        if self.faults("hang_sleep"):
            await asyncio.Event().wait()
        self.counts["sleeps"] += 1
        if self.faults("sleep_lies"):
            return
        if self.running:
            self.counts["sleeps_while_running"] += 1
            # As vLLM did: the answer says 200, and the engine is gone.
            asyncio.get_running_loop().call_soon(die, "illegal memory access during sleep", signal.SIGABRT)
            return
        self.paused = True
        self._awake.clear()
        if level == 0 or "weights" in self.asleep:
            return
        self.asleep = set(TAGS)
        self.cuda.begin("sleep")
        before = self.cuda.free()
        if not self.faults("keep_memory"):
            self.kv_cache.free()
            if level == 2 or self.cuda.gpus:
                self.weights.free()
        for _ in iter(lambda: bool(self.faults("hold_sleep")), False):
            await asyncio.sleep(0.02)
        if any(now < then for now, then in zip(self.cuda.free(), before, strict=True)):
            die("AssertionError: Memory usage increased after sleeping.")
        if level == 2:
            self.weights_good = False
        if leak := int(self.faults("leak_bytes")):
            self.leaks.append(GpuBlock(leak, self.cuda.gpus) if self.cuda.gpus else Block(leak))
        self.cuda.end("sleep")

    async def wake_up(self, tags: list[str]) -> str:
        if self.faults("fail_wake"):
            raise HttpError(500, "CUDA Error: out of memory at cumem_allocator.cpp:139")
        if self.faults("hang_wake"):
            await asyncio.Event().wait()
        self.counts["wakes"] += 1
        if self.asleep and set(tags) <= self.asleep:  # a tag that is not asleep: a silent no-op
            woken = set(tags) or set(self.asleep)
            if self.asleep == TAGS:
                self.cuda.begin("wake")
            self.asleep -= woken
            try:
                if "weights" in woken:
                    self.weights.take()
                if "kv_cache" in woken:
                    self.kv_cache.take()
            except OutOfMemory as error:
                raise HttpError(
                    500, f"CUDA Error: out of memory at cumem_allocator.cpp:139 ({error})"
                ) from error
            if not self.asleep:
                self.cuda.end("wake")
            if self.faults("garbage"):
                self.weights_good = False
        if self.asleep:
            return "sleeping"
        self.paused = False
        self._awake.set()
        return "awake"

    def reload_weights(self) -> None:
        if self.faults("fail_reload") or "weights" in self.asleep:
            raise HttpError(500, "reload_weights failed")
        self.counts["reloads"] += 1
        self.weights_good = not self.faults("garbage")

    def stats(self) -> dict[str, object]:
        names = (
            "requests", "completed", "aborted", "running_max", "sleeps", "wakes", "reloads",
            "sleeps_while_running", "requests_while_asleep", "scrapes", "scrapes_while_asleep", "scrapes_cut",
        )  # fmt: skip
        return {name: self.counts[name] for name in names} | {"running": self.running, "pid": os.getpid()}


def die(message: str, signum: int = signal.SIGKILL) -> None:
    """Gone at once, as by a fault in native code."""
    say(f"ERROR {message}")
    os.kill(os.getpid(), signum)


def say(line: str) -> None:
    """One line in the log, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
