"""The socket between a worker and the system: order, size, descriptors, and the end."""

import asyncio
import errno
import os
import socket

import pytest

from vllama.actors.workers import wire
from vllama.actors.workers.link import PIECE_BYTES, Link


class End:
    """One end, and all that it has heard."""

    def __init__(self, sock: socket.socket, decoder) -> None:
        self.deaf = False
        self.heard: list = []
        self.fds: list[int] = []
        self.lost = asyncio.Event()
        self.why = ""
        self.some = asyncio.Event()
        self.link = Link(sock, decoder, self.hear, self.end)

    def hear(self, message, fd) -> None:
        if self.deaf:
            raise OSError(errno.EMFILE, "no descriptor is left for a copy")
        self.heard.append(message)
        if fd is not None:
            self.fds.append(os.dup(fd))
        self.some.set()

    def end(self, why: str) -> None:
        self.why = why
        self.lost.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.heard) < count:
                self.some.clear()
                await self.some.wait()


def pair() -> tuple[End, End]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return End(ours, wire.from_worker), End(theirs, wire.from_system)


async def _order_is_kept_through_frames_that_do_not_fit() -> None:
    system, worker = pair()
    big = b"x" * (PIECE_BYTES * 30)  # more than the socket's buffer takes
    for number in range(50):
        worker.link.say(wire.Leave(number))
    worker.link.hand(wire.Handed(big), os.dup(0))
    worker.link.say(wire.Leave(50))
    await system.until(52)
    assert [m.ref for m in system.heard if isinstance(m, wire.Leave)] == list(range(51))
    assert system.heard[50] == wire.Handed(big)
    assert len(system.fds) == 1
    os.close(system.fds[0])
    worker.link.close("over")
    async with asyncio.timeout(30):
        await system.lost.wait()


async def _what_was_said_before_the_end_is_heard() -> None:
    system, worker = pair()
    worker.link.say(wire.Done([], [1, 2]))
    worker.link.flush()
    worker.link.close("over")
    async with asyncio.timeout(30):
        await system.lost.wait()
    assert system.heard == [wire.Done([], [1, 2])]
    system.link.say(wire.End())  # to nobody
    system.link.flush()
    assert system.link.closed


async def _nonsense_is_the_end() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    system = End(ours, wire.from_worker)
    theirs.send(b"\0" + wire.encode([["Nothing", 1]]))
    async with asyncio.timeout(30):
        await system.lost.wait()
    assert "nonsense" in system.why
    theirs.close()


async def _a_descriptor_that_was_handed_over_is_its_receivers_alone() -> None:
    system, worker = pair()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    worker.link.hand(wire.Handed(b"x"), writer)
    await system.until(1)
    await asyncio.sleep(0)  # the turn that heard of it is over
    os.close(system.fds[0])
    assert os.read(reader, 1) == b"", "somebody holds the other end"  # BlockingIOError: somebody does
    os.close(reader)
    for end in (worker, system):
        end.link.close("over")


async def _a_descriptor_of_which_no_copy_can_be_made_is_closed() -> None:
    system, worker = pair()
    faults: list[dict] = []
    told = asyncio.Event()

    def tell(_: asyncio.AbstractEventLoop, context: dict) -> None:
        faults.append(context)
        told.set()

    asyncio.get_running_loop().set_exception_handler(tell)
    system.deaf = True
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    worker.link.hand(wire.Handed(b"x"), writer)
    async with asyncio.timeout(30):
        await told.wait()
    assert isinstance(faults[0]["exception"], OSError)
    assert os.read(reader, 1) == b"", "somebody holds the other end"
    os.close(reader)
    for end in (worker, system):
        end.link.close("over")


def test_a_descriptor_of_which_no_copy_can_be_made_is_closed() -> None:
    asyncio.run(_a_descriptor_of_which_no_copy_can_be_made_is_closed())


def test_a_descriptor_that_was_handed_over_is_its_receivers_alone() -> None:
    asyncio.run(_a_descriptor_that_was_handed_over_is_its_receivers_alone())


def test_order_is_kept_through_frames_that_do_not_fit() -> None:
    asyncio.run(_order_is_kept_through_frames_that_do_not_fit())


def test_what_was_said_before_the_end_is_heard() -> None:
    asyncio.run(_what_was_said_before_the_end_is_heard())


def test_nonsense_is_the_end() -> None:
    asyncio.run(_nonsense_is_the_end())


@pytest.mark.parametrize(
    "message",
    [
        wire.Ask(1, "m", "r", None),
        wire.Done([(5, ["a", "b"])], [5]),
        wire.Counted([(("m", "/v1/x", 200), [1.0, 2.0])]),
        wire.KeepAlive("m", -1.0),
    ],
    ids=lambda m: type(m).__name__,
)
def test_messages_survive_the_wire(message) -> None:
    assert wire.from_worker.decode(wire.encode([message])) == [message]
