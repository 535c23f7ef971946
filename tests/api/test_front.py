"""What clients and engines do to a connection, over both ways of the data path: the fast one, and the ordinary one (where alone a
caller's own bound on its wait is read). The front, its two ways and the engines are in the test's own process."""

import asyncio
import json
import re

import pytest

from tests.api.front_rig import (
    FAST,
    OK,
    STREAM,
    WAYS,
    Stand,
    answer_of,
    answering,
    ask,
    chunk,
    play,
    request,
    take,
)


def test_the_ways_are_what_they_are_called():
    async def test(place: Stand) -> None:
        for way, asked in (("fast", 1), ("ordinary", 1)):  # the ordinary one does not ask by `ask`
            status, headers, body = await ask(place, request(FAST, None, *WAYS[way], "X-Request-Id: mine"))
            assert (status, body, headers["x-request-id"], headers["x-vllama-state"]) == (
                200, b"{}", "mine", "warm",
            )  # fmt: skip
            assert len(place.desk.asked) == asked

    play(test)


def test_a_body_may_come_in_pieces_in_chunks_and_after_a_100_continue(way: tuple[str, ...]):
    got: list[tuple[bytes, bytes]] = []

    async def test(place: Stand) -> None:
        reader, writer = await place.dial()
        data = request(FAST, {"model": "m", "text": "é" * 100}, *way)
        for at in range(0, len(data), 7):
            writer.write(data[at : at + 7])
            await writer.drain()
        assert (await answer_of(reader))[0] == 200
        writer.write(request(FAST, {"model": "m"}, *way, "Expect: 100-continue")[:-14])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"model": "m"}')
        assert (await answer_of(reader))[0] == 200
        head = f"POST {FAST} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n".encode()
        head += b"".join(line.encode() + b"\r\n" for line in way) + b"\r\n"
        writer.write(head + b'9;x=y\r\n{"model":\r\n4\r\n"m"}\r\n0\r\nX-Trailer: evil\r\n\r\n')
        assert (await answer_of(reader))[0] == 200
        writer.close()

    play(test, answering(OK, got))
    bodies = [json.loads(body) for _, body in got]
    assert bodies == [{"model": "m", "text": "é" * 100}, {"model": "m"}, {"model": "m"}]
    for head, _ in got:
        assert b"x-request-id: " in head.lower()
        assert b"expect" not in head.lower()
        assert b"x-trailer" not in head.lower()
        assert b"x-vllama" not in head.lower()


def test_a_body_that_is_said_to_be_no_json_reaches_no_engine(way: tuple[str, ...]):
    got: list[tuple[bytes, bytes]] = []

    async def test(place: Stand) -> None:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "text/" + "x" * 9000):
            status, _, body = await ask(place, request(FAST, None, *way, f"Content-Type: {kind}"))
            error = json.loads(body)["error"]
            assert (kind, status, error["code"]) == (kind, 415, "unsupported_media_type")
            assert len(error["message"]) < 400
        assert got == []
        for kinds in (["application/json"], ["Application/JSON;charset=utf-8"], [""], []):
            headers = [f"Content-Type: {kind}" for kind in kinds]
            assert (kinds, (await ask(place, request(FAST, None, *way, *headers)))[0]) == (kinds, 200)
            sent = re.findall(rb"(?mi)^content-type: ?(.*)\r$", got[-1][0])
            assert sent == [kind.encode() for kind in kinds]
        assert place.desk.asked or way

    play(test, answering(OK, got))


ANSWERS = {
    "plain": (OK, 200, b"{}"),
    "1xx before": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, 200, b"{}"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "empty": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b""),
    "chunks": (STREAM + chunk(b"data: a\n\n") + chunk(b"data: b\n\n") + b"0\r\n\r\n", 200, b"data: a\n\ndata: b\n\n"),
    "chunks with extensions and trailers": (
        STREAM + b"3;a=b\r\nabc\r\n" + b"0\r\nx-trailer: y\r\n\r\n", 200, b"abc"),
    "an error": (b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno", 400, b"no"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ANSWERS))
@pytest.mark.parametrize("apart", [False, True], ids=["at once", "byte by byte"])
def test_every_shape_of_answer_comes_through(way: tuple[str, ...], name: str, apart: bool):
    answer, status, body = ANSWERS[name]

    async def script(reader, writer) -> None:
        while True:
            await take(reader)
            for at in range(len(answer)) if apart else [0]:
                writer.write(answer[at : at + 1] if apart else answer)
                await writer.drain()
                await asyncio.sleep(0)

    async def test(place: Stand) -> None:
        reader, writer = await place.dial()
        for _ in range(3):
            writer.write(request(FAST, None, *way))
            got, headers, said = await answer_of(reader)
            assert (got, said) == (status, body)
            assert "x-trailer" not in headers
            assert "link" not in headers
        await place.until(lambda: not place.desk.out)
        writer.close()

    play(test, script)


def test_an_answer_without_a_length_ends_with_the_engines_connection(way: tuple[str, ...]):
    async def script(reader, writer) -> None:
        await take(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nab")
        await writer.drain()
        writer.write(b"cd")

    async def test(place: Stand) -> None:
        for _ in range(2):
            status, headers, body = await ask(place, request(FAST, None, *way))
            assert (status, body, headers["transfer-encoding"]) == (200, b"abcd", "chunked")

    play(test, script)


EVIL = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
LONG = {
    "some bytes": (OK + b"xx", b"{}"),
    "an answer": (OK + EVIL, b"{}"),
    "behind no content": (b"HTTP/1.1 204 No Content\r\n\r\n" + EVIL, b""),
    "behind an empty body": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" + EVIL, b""),
    "behind chunks": (STREAM + chunk(b"data: a\n\n") + b"0\r\n\r\n" + EVIL, b"data: a\n\n"),
    "behind trailers": (STREAM + chunk(b"abc") + b"0\r\na: b\r\n\r\n" + EVIL, b"abc"),
}


@pytest.mark.parametrize("name", list(LONG))
def test_what_an_engine_sends_behind_its_answer_reaches_nobody(way: tuple[str, ...], name: str):
    """It would be taken for the answer to the next request of that connection, whoever sends it."""
    said, body = LONG[name]
    connections = 0

    async def script(reader, writer) -> None:
        nonlocal connections
        connections += 1
        await answering(said)(reader, writer)

    async def test(place: Stand) -> None:
        reader, writer = await place.dial()
        for _ in range(4):
            writer.write(request(FAST, None, *way))
            assert (await answer_of(reader))[2] == body
        writer.close()

    play(test, script)
    assert connections == 4  # who says more than it should is not asked again


def test_what_an_engine_sends_unasked_ends_its_connection(way: tuple[str, ...]):
    heard = asyncio.Event()
    connections = unasked = 0

    async def script(reader, writer) -> None:
        nonlocal connections, unasked
        connections += 1
        await take(reader)
        writer.write(OK)
        await heard.wait()
        heard.clear()
        writer.write(EVIL)
        unasked += 1
        await answering(OK)(reader, writer)

    async def test(place: Stand) -> None:
        for number in range(1, 4):
            assert (await ask(place, request(FAST, None, *way)))[2] == b"{}"
            heard.set()
            await place.until(lambda number=number: unasked == number)
            assert connections == number

    play(test, script)


BROKEN = {
    "before a byte": (b"", "before it answered"),
    "in the head": (b"HTTP/1.1 200 OK\r\ncontent-le", "before it answered"),
    "with no HTTP": (b"hello\r\n\r\n", "before it answered"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_an_engine_that_breaks_before_its_answer_is_a_502(way: tuple[str, ...], name: str):
    said, when = BROKEN[name]

    async def script(reader, writer) -> None:
        await take(reader)
        writer.write(said)

    async def test(place: Stand) -> None:
        status, _, body = await ask(place, request(FAST, None, *way))
        error = json.loads(body)["error"]
        assert (status, error["code"]) == (502, "engine_lost")
        assert when in error["message"]
        assert place.desk.out == []

    play(test, script)


@pytest.mark.parametrize(
    "said", [chunk(b"data: a\n\n"), chunk(b"data: a"), b"9\r\ndata", b"9\r\n", b"", b"9\r\ndata: a\n\nXX"]
)
def test_an_engine_that_breaks_in_a_stream_ends_it_with_an_event(way: tuple[str, ...], said: bytes):
    async def script(reader, writer) -> None:
        await take(reader)
        writer.write(STREAM + said)

    async def test(place: Stand) -> None:
        status, _, body = await ask(place, request(FAST, None, *way))
        assert status == 200
        *before, last = body.rstrip().split(b"\n\n")
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_lost"
        assert len(before) <= 1
        assert place.desk.out == []

    play(test, script)


def test_any_other_answer_that_breaks_is_torn(way: tuple[str, ...]):
    async def script(reader, writer) -> None:
        await take(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")

    async def test(place: Stand) -> None:
        reader, writer = await place.dial()
        writer.write(request(FAST, None, *way))
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.read() == b"abc"
        writer.close()
        await place.until(lambda: not place.desk.out)

    play(test, script)


@pytest.mark.parametrize(
    "answer", [b"", STREAM, STREAM + chunk(b"data: a\n\n")], ids=["silent", "head", "stream"]
)
def test_a_client_that_vanishes_closes_the_engines_connection(way: tuple[str, ...], answer: bytes):
    asked, closed = asyncio.Event(), asyncio.Event()

    async def script(reader, writer) -> None:
        await take(reader)
        writer.write(answer)
        asked.set()
        try:
            await reader.read()
        finally:
            closed.set()

    async def test(place: Stand) -> None:
        reader, writer = await place.dial()
        writer.write(request(FAST, None, *way))
        await asked.wait()
        if answer:
            await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        await closed.wait()
        await place.until(lambda: not place.desk.out)

    play(test, script)


def test_a_client_that_vanishes_in_its_body_reaches_nobody(way: tuple[str, ...]):
    async def test(place: Stand) -> None:
        _, writer = await place.dial()
        writer.write(request(FAST, None, *way)[:-3])
        await place.until(lambda: bool(place.common.connections))
        writer.transport.abort()
        await place.until(lambda: not place.common.connections)
        assert place.desk.asked == []
        assert place.desk.out == []

    play(test)


def test_a_slow_reader_holds_the_engine_back_and_costs_little(way: tuple[str, ...]):
    """The engine could send without end; what is held here for a client that does not read stays small."""
    sent = 0
    held = asyncio.Event()
    part = chunk(b"data: " + b"x" * 16_000 + b"\n\n")

    async def script(reader, writer) -> None:
        nonlocal sent
        await take(reader)
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(STREAM)
        while sent < 2**28:
            writer.write(part)
            sent += len(part)
            async with asyncio.timeout(2.0):
                await writer.drain()

    async def guarded(reader, writer) -> None:
        try:
            await script(reader, writer)
        except TimeoutError:
            held.set()
            await reader.read()

    async def test(place: Stand) -> None:
        _, writer = await place.dial()
        writer.transport.pause_reading()
        writer.write(request(FAST, None, *way))
        await held.wait()
        (front,) = place.common.connections
        assert front.transport.get_write_buffer_size() < 200_000
        assert sent < 2**27  # the rest is in the kernel's buffers
        writer.transport.abort()
        await place.until(lambda: not place.desk.out)

    play(test, guarded)


def test_a_client_that_sends_slowly_is_let_go(way: tuple[str, ...]):
    async def test(place: Stand) -> None:
        assert await place.say(b"") == b""  # nothing at all
        assert (await place.say(b"POST / HT")).startswith(b"HTTP/1.1 408 ")
        late = await place.say(request(FAST, None, *way)[:-3])
        assert late == b"" or late.startswith(b"HTTP/1.1 408 ")
        assert place.desk.asked == []
        assert not place.common.connections

    play(test, head_timeout_s=0.2, body_timeout_s=0.2)
