"""The system's side of a worker: what it asks for and leaves again, in whatever order that is heard, leaves nothing behind."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.actors.test_system import StuckHost
from vllama.actors import System, Teller, WorkerAccess
from vllama.actors.workers import wire
from vllama.actors.workers.link import Link
from vllama.config import load_config

BOUND_S = 20.0
NOBODY = WorkerAccess((), (), control_off=False)


class Worker:
    """A worker's end of the socket, and the System at the other; its host starts engines for ever."""

    def __init__(self, folder: Path) -> None:
        self.host = StuckHost()
        config = load_config({"config_dir": str(folder), "transformers_cache": str(folder)}, env={})
        self.system = System(config, self.host)
        self.heard: asyncio.Queue[wire.FromSystem] = asyncio.Queue()
        self.link: Link[wire.FromSystem]
        self.teller: Teller

    async def begin(self) -> None:
        """One request waits for the model's engine, and always will."""
        await self.system.start()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.teller = self.system.bank.open(ours, 0, lambda fd, data: None, lambda: None, NOBODY)
        self.link = Link(
            theirs, wire.from_system, lambda message, fd: self.heard.put_nowait(message), lambda why: None
        )
        self.link.say(wire.Ask(1, "m", "first", None))
        await self.host.launching.wait()
        assert self.waiting() == 1

    def waiting(self) -> int:
        return self.system.ps()[0].waiting

    async def until_heard(self) -> None:
        """The system has heard all that was said so far: it answers in order."""
        self.link.say(wire.Seek(99, "nobody/nothing"))
        while not (isinstance(answer := await self.heard.get(), wire.Refused) and answer.ref == 99):
            pass

    async def end(self) -> None:
        hurry = asyncio.Event()
        hurry.set()
        self.link.close("over")
        await self.system.shutdown(hurry)


def told(folder: Path, story: Callable[[Worker], Awaitable[None]]) -> None:
    async def run() -> None:
        worker = Worker(folder)
        async with asyncio.timeout(BOUND_S):
            await worker.begin()
            await story(worker)
            await worker.end()

    asyncio.run(run())


@pytest.mark.parametrize("count", [1, 20])
def test_a_caller_that_leaves_in_the_breath_in_which_it_asked_is_waited_for_by_nobody(
    tmp_path: Path, count: int
) -> None:
    """Both are in one frame, as they are whenever the system is slower than the caller is patient."""

    async def story(worker: Worker) -> None:
        for ref in range(2, 2 + count):
            worker.link.say(wire.Ask(ref, "m", "hasty", None))
            worker.link.say(wire.Leave(ref))
        await worker.until_heard()
        assert worker.waiting() == 1

    told(tmp_path, story)


def test_a_caller_that_leaves_later_is_waited_for_by_nobody(tmp_path: Path) -> None:
    async def story(worker: Worker) -> None:
        worker.link.say(wire.Leave(1))
        await worker.until_heard()
        assert worker.waiting() == 0

    told(tmp_path, story)


def test_what_a_worker_asked_for_in_its_last_breath_is_waited_for_by_nobody(tmp_path: Path) -> None:
    async def story(worker: Worker) -> None:
        worker.link.say(wire.Ask(2, "m", "last", None))
        worker.link.flush()
        worker.link.close("it dies")
        await worker.teller.lost.wait()
        await asyncio.sleep(0)
        assert worker.waiting() == 0

    told(tmp_path, story)
