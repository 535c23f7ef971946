"""Connections to engines that are plain sockets: kept, closed at once, tried again only when nothing was sent."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import httpcore
import httpx
import pytest
from serving import wait_until

from vllama.api.upstream import Ask, Upstreams

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
        upstreams = Upstreams()
        try:
            async with asyncio.timeout(BOUND_S):
                await test(upstreams)
        finally:
            await upstreams.aclose()

    asyncio.run(main())


def stream(upstreams: Upstreams, port: int, target: bytes = b"/v1/x"):
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    return upstreams.stream("127.0.0.1", port, Ask("POST", target, headers, lambda: b"{}"))


async def body(response: httpx.Response) -> bytes:
    return b"".join([chunk async for chunk in response.aiter_raw()])


def kept_is_readable(upstreams: Upstreams) -> bool:
    """Whether something (an end, a reset) has come in on the one connection that is kept."""
    ((engine,),) = [upstreams._engines.values()]
    (connection,) = engine.transport._pool.connections
    return connection._connection._network_stream.get_extra_info("is_readable")


def test_a_connection_is_kept_for_the_next_request_and_the_target_goes_as_it_is():
    heads = []

    async def script(reader, writer, number):
        while True:
            heads.append((number, await take(reader)))
            writer.write(ANSWER)

    async def test(upstreams: Upstreams) -> None:
        async with engine(script) as port:
            for _ in range(2):
                async with stream(upstreams, port, b"/v1/x?a=%2F%20&&b") as response:
                    assert await body(response) == b"ok"
            await upstreams.aclose()

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
            async with stream(upstreams, port) as response:
                chunks = response.aiter_raw()  # somebody may hold on to it: nothing waits for the collector
                assert await anext(chunks) == b"x"
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
            async with stream(upstreams, port) as response:
                await body(response)
            with pytest.raises(httpx.TransportError):
                async with stream(upstreams, port):
                    raise AssertionError("there is no answer")

    play(test)
    assert seen == [1, 1]


def test_a_kept_connection_that_takes_nothing_is_replaced_by_a_second_try(monkeypatch: pytest.MonkeyPatch):
    """The engine resets an idle connection just after the pool has looked at it."""
    monkeypatch.setattr(httpcore.AsyncHTTPConnection, "has_expired", lambda self: False)
    seen = []

    async def test(upstreams: Upstreams) -> None:
        reset = asyncio.Event()

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

        async with engine(script) as port:
            async with stream(upstreams, port) as response:
                assert await body(response) == b"ok"
            reset.set()
            assert await asyncio.to_thread(wait_until, lambda: kept_is_readable(upstreams), BOUND_S)
            async with stream(upstreams, port) as response:
                assert await body(response) == b"ok"

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
                async with stream(upstreams, port) as response:
                    assert await body(response) == b"ok"

    play(test)
    assert seen == [1, 2]


def test_a_port_where_nobody_listens_is_an_error():
    async def test(upstreams: Upstreams) -> None:
        async with engine(lambda *_: asyncio.sleep(0)) as port:
            pass
        with pytest.raises(httpx.ConnectError):
            async with stream(upstreams, port):
                raise AssertionError("there is no answer")

    play(test)
