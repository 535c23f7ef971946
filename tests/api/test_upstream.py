"""Connections to engines that are plain sockets: kept, closed at once, tried again only when nothing was sent."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from vllama.api.link import LinkBroken
from vllama.api.links import KEEPALIVE_S, KEPT_MAX, Links
from vllama.api.upstream import Ask, Reply, Unreachable, Upstreams

BOUND_S = 20
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


@asynccontextmanager
async def engine(script: Script):
    """A socket that plays `script(reader, writer, number of the connection)`; yields its port."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            await script(reader, writer, count)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def take(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(2)
    return head


def play(test: Callable[[Upstreams], Awaitable[None]]) -> None:
    async def main() -> None:
        links = Links()
        async with asyncio.timeout(BOUND_S):
            try:
                await test(Upstreams(links))
            finally:
                links.close()

    asyncio.run(main())


def stream(upstreams: Upstreams, port: int, target: bytes = b"/v1/x"):
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    return upstreams.stream("127.0.0.1", port, Ask("POST", target, headers, lambda: b"{}"))


async def body(reply: Reply) -> bytes:
    return b"".join([piece async for piece in reply.pieces()])


def test_a_connection_is_kept_for_the_next_request_and_the_target_goes_as_it_is():
    heads = []

    async def script(reader, writer, number):
        while True:
            heads.append((number, await take(reader)))
            writer.write(ANSWER)

    async def test(upstreams: Upstreams) -> None:
        async with engine(script) as port:
            for _ in range(2):
                async with stream(upstreams, port, b"/v1/x?a=%2F%20&&b") as reply:
                    assert await body(reply) == b"ok"

    play(test)
    assert [number for number, _ in heads] == [1, 1]
    assert heads[0][1].startswith(b"POST /v1/x?a=%2F%20&&b HTTP/1.1\r\n")
    assert b"user-agent" not in heads[0][1].lower()


def test_leaving_before_the_end_closes_the_connection_at_once():
    async def test(upstreams: Upstreams) -> None:
        closed = asyncio.Event()

        async def script(reader, writer, number):
            await take(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx")
            assert await reader.read() == b""
            closed.set()

        async with engine(script) as port:
            async with stream(upstreams, port) as reply:
                pieces = reply.pieces()  # somebody may hold on to it: nothing waits for the collector
                assert await anext(pieces) == b"x"
            await closed.wait()

    play(test)


def test_being_cancelled_while_the_engine_thinks_closes_the_connection_at_once():
    async def test(upstreams: Upstreams) -> None:
        asked, closed = asyncio.Event(), asyncio.Event()

        async def script(reader, writer, number):
            await take(reader)
            asked.set()
            assert await reader.read() == b""
            closed.set()

        async def ask(port: int) -> None:
            async with stream(upstreams, port):
                raise AssertionError("there is no answer")

        async with engine(script) as port, asyncio.TaskGroup() as group:
            task = group.create_task(ask(port))
            await asked.wait()
            task.cancel()
            await closed.wait()

    play(test)


@pytest.mark.parametrize("many", [5, KEPT_MAX + 5])
def test_so_many_connections_are_kept_and_none_for_long(many: int):
    gate, asked = asyncio.Event(), 0

    async def script(reader, writer, number):
        nonlocal asked
        await take(reader)
        asked += 1
        await gate.wait()
        writer.write(ANSWER)
        await reader.read()

    async def ask(upstreams: Upstreams, port: int) -> None:
        async with stream(upstreams, port) as reply:
            assert await body(reply) == b"ok"

    async def test(upstreams: Upstreams) -> None:
        links = upstreams._links
        async with engine(script) as port:
            async with asyncio.TaskGroup() as group:
                for number in range(1, many + 1):
                    group.create_task(ask(upstreams, port))
                    if number % 50 == 0 or number == many:  # no more at once than a listener lets wait
                        await until(lambda number=number: asked == number)
                gate.set()
            kept = links._idle["127.0.0.1", port]
            assert len(kept) == min(many, KEPT_MAX)
            links.look()
            assert len(kept) == min(many, KEPT_MAX)
            for link in kept:
                link.idle_since -= KEEPALIVE_S
            links.look()
            assert kept == []
            await until(lambda: not links._open)

    play(test)


def test_an_engine_that_has_read_the_request_is_not_asked_twice():
    seen = []

    async def script(reader, writer, number):
        await take(reader)
        seen.append(number)
        if len(seen) == 1:
            writer.write(ANSWER)
            await take(reader)
            seen.append(number)

    async def test(upstreams: Upstreams) -> None:
        async with engine(script) as port:
            async with stream(upstreams, port) as reply:
                await body(reply)
            with pytest.raises(LinkBroken):
                async with stream(upstreams, port):
                    raise AssertionError("there is no answer")

    play(test)
    assert seen == [1, 1]


def test_a_kept_connection_that_the_engine_has_reset_is_replaced():
    seen = []

    async def test(upstreams: Upstreams) -> None:
        reset, gone = asyncio.Event(), asyncio.Event()

        async def script(reader, writer, number):
            await take(reader)
            seen.append(number)
            writer.write(ANSWER)
            await writer.drain()
            if number == 1:
                await reset.wait()
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                asyncio.get_running_loop().call_soon(gone.set)

        async with engine(script) as port:
            async with stream(upstreams, port) as reply:
                assert await body(reply) == b"ok"
            reset.set()
            await gone.wait()
            async with stream(upstreams, port) as reply:
                assert await body(reply) == b"ok"

    play(test)
    assert seen == [1, 2]


def test_a_kept_connection_that_the_engine_closed_is_replaced():
    seen = []

    async def test(upstreams: Upstreams) -> None:
        async def script(reader, writer, number):
            await take(reader)
            seen.append(number)
            writer.write(ANSWER)
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        async with engine(script) as port:
            for _ in range(2):
                async with stream(upstreams, port) as reply:
                    assert await body(reply) == b"ok"

    play(test)
    assert seen == [1, 2]


def test_a_port_where_nobody_listens_is_an_error():
    async def test(upstreams: Upstreams) -> None:
        async with engine(lambda *_: asyncio.sleep(0)) as port:
            pass
        with pytest.raises(Unreachable):
            async with stream(upstreams, port):
                raise AssertionError("there is no answer")

    play(test)


async def until(there: Callable[[], bool]) -> None:
    while not there():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0.005)


def upload(upstreams: Upstreams, port: int, blocks: Callable[[], AsyncIterator[bytes]], size: int):
    return upstreams.stream(
        "127.0.0.1", port, Ask("POST", b"/v1/x", [(b"content-length", b"%d" % size)], blocks)
    )


def test_a_long_body_goes_out_at_the_pace_of_the_engine():
    block, count, given, got = b"x" * 2**16, 512, 0, b""
    gate = asyncio.Event()

    async def blocks() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(count):
            given += 1
            yield block

    async def script(reader, writer, number):
        nonlocal got
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        got = await reader.readexactly(len(block) * count)
        writer.write(ANSWER)

    async def ask(upstreams: Upstreams, port: int) -> None:
        async with upload(upstreams, port, blocks, len(block) * count) as reply:
            assert await body(reply) == b"ok"

    async def test(upstreams: Upstreams) -> None:
        async with engine(script) as port, asyncio.TaskGroup() as group:
            group.create_task(ask(upstreams, port))
            await until(lambda: any(not link._room.is_set() for link in upstreams._links._open))
            assert given < count / 2  # the rest waits where it lies
            gate.set()

    play(test)
    assert got == block * count


def test_an_answer_before_the_body_is_out_ends_the_body_and_the_connection():
    """An engine that refuses a body does not read it: what follows on that connection would be taken for the body."""
    seen, given = [], 0
    answered = asyncio.Event()

    async def blocks() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(100):
            given += 1
            yield b"x"
            await answered.wait()
            await asyncio.sleep(0)

    async def script(reader, writer, number):
        seen.append(number)
        await reader.readuntil(b"\r\n\r\nx")
        writer.write(ANSWER)
        await writer.drain()
        answered.set()
        await reader.read()

    async def test(upstreams: Upstreams) -> None:
        async with engine(script) as port:
            for _ in range(2):
                async with upload(upstreams, port, blocks, 100) as reply:
                    assert await body(reply) == b"ok"

    play(test)
    assert seen == [1, 2]
    assert given < 100


def test_an_answer_that_nobody_reads_is_left_in_the_kernel():
    async def test(upstreams: Upstreams) -> None:
        held = asyncio.Event()

        async def script(reader, writer, number):
            await take(reader)
            writer.transport.set_write_buffer_limits(high=0)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % 2**26)
            for _ in range(2**10):
                writer.write(b"x" * 2**16)
                if writer.transport.get_write_buffer_size():
                    held.set()
                await writer.drain()

        async with engine(script) as port, stream(upstreams, port) as reply:
            await held.wait()
            (link,) = upstreams._links._open
            await until(lambda: link._paused)
            assert sum(map(len, reply._pieces)) < 2**20
            size = 0
            async for piece in reply.pieces():
                size += len(piece)
                assert sum(map(len, reply._pieces)) < 2**20
            assert size == 2**26

    play(test)
