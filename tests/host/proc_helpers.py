"""What the tests of processes share: waiting for facts, and what is left of a server in /proc, /tmp and /dev/shm."""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from vllama.host import proctree
from vllama.host.processes import Order, Processes, ProcessEvent

ENGINE = str(Path(__file__).with_name("tree_engine.py"))
GONE_S = 5.0  # what the design promises


def eventually(what: Callable[[], Any], within_s: float = 20.0) -> Any:
    """The first true answer of `what`."""
    deadline = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.01)
    return found


async def soon(what: Callable[[], Any], within_s: float = 20.0) -> Any:
    """`eventually`, while the loop runs."""
    deadline = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.01)
    return found


def leftovers(mark: str) -> list[str]:
    """What begins with a server's or launch's mark: run folders and shared memory."""
    places = (Path(tempfile.gettempdir()), Path("/dev/shm"))
    return [str(path) for place in places for path in place.glob(f"*{mark}*")]


def below(pid: int) -> list[proctree.Proc]:
    """The processes below `pid`, zombies included."""
    return proctree.descendants([pid])


class Server:
    """Open processes and the events they sent."""

    def __init__(self, processes: Processes, events: list[ProcessEvent], folder: Path) -> None:
        self.processes = processes
        self.events = events
        self.folder = folder
        self.mark = processes._folder.mark

    async def launch(self, launch_id: str, **changes: Any) -> int:
        """The pid of a stand-in engine that is up."""
        log = self.folder / f"{launch_id}.log"
        order = Order(**({"launch_id": launch_id, "argv": (), "log": log, "entry": ENGINE} | changes))
        started = await self.processes.launch(order)
        await soon(lambda: "up" in log.read_text())
        # child and grandchild too
        await soon(lambda: len(below(started.pid)) == 2)
        assert len(await self.processes.tree(launch_id)) == 4
        return started.pid

    async def event(self, kind: str, launch_id: str = "") -> ProcessEvent:
        found = await soon(lambda: [e for e in self.events if (e.kind, e.launch_id) == (kind, launch_id)])
        assert len(found) == 1
        return found[0]


@contextlib.asynccontextmanager
async def server(folder: Path, **options: Any) -> AsyncIterator[Server]:
    """Processes that are closed at the end, and then leave nothing."""
    events: list[ProcessEvent] = []
    before = {proc.pid for proc in below(os.getpid())}
    processes = Processes(events.append, **({"preload": False} | options))
    await processes.open()
    try:
        yield Server(processes, events, folder)
    finally:
        await processes.close()
    assert [proc for proc in below(os.getpid()) if proc.pid not in before] == []
    assert leftovers(processes._folder.mark) == []
