"""Tickets, names and kept connections over both ways of the data path, in the test's own process."""

import asyncio
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.api.front_rig import (
    FAST,
    OK,
    ORDINARY,
    Stand,
    answer_of,
    answering,
    ask,
    play,
    request,
    take,
)


def test_who_waits_is_admitted_later_and_may_leave_before(monkeypatch: pytest.MonkeyPatch):
    async def test(place: Stand) -> None:
        place.desk.wait = True
        reader, writer = await place.dial()
        writer.write(request(FAST))
        await place.until(lambda: bool(place.desk.waiting))
        place.desk.waiting.pop().admit(place.desk.ticket())
        assert (await answer_of(reader))[0] == 200
        writer.write(request(FAST))
        await place.until(lambda: bool(place.desk.waiting))
        writer.transport.abort()
        await place.until(lambda: place.desk.given_up == 1)
        assert place.desk.out == []

    play(test)


def test_an_engine_that_listens_no_more_is_reported_and_its_successor_asked(way: tuple[str, ...]):
    async def test(place: Stand) -> None:
        living = place.desk.port
        gone = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        place.desk.port = gone.sockets[0].getsockname()[1]
        gone.close()
        await gone.wait_closed()
        place.desk.heal_to = living
        status, _, body = await ask(place, request(FAST, None, *way))
        assert (status, place.desk.unreachable) == (200, 1)
        assert body == b"{}"
        assert place.desk.out == []

    play(test)


@contextmanager
def no_descriptor() -> Iterator[None]:
    """This process may open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_engine_is_not_blamed_for_a_connection_that_we_may_not_open(way: tuple[str, ...]):
    async def test(place: Stand) -> None:
        reader, writer = await place.dial()
        writer.write(request(ORDINARY, method="GET"))
        await answer_of(reader)
        with no_descriptor():
            writer.write(request(FAST, None, *way))
            status, headers, body = await answer_of(reader)
        assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")
        assert int(headers["retry-after"]) >= 1
        assert (place.desk.unreachable, place.desk.out) == (0, [])
        writer.write(request(FAST, None, *way))
        assert (await answer_of(reader))[0] == 200
        writer.close()

    play(test)


def test_an_alias_goes_to_the_engine_under_the_models_own_name(way: tuple[str, ...]):
    got = []

    async def script(reader, writer) -> None:
        got.append(await take(reader))
        writer.write(OK)

    async def test(place: Stand) -> None:
        await ask(place, request(FAST, {"a": "model", "model": "alias", "n": 1.50}, *way))

    play(test, script)
    assert got[0][1] == b'{"a": "model", "model": "m", "n": 1.5}'


def test_what_is_odd_about_a_body_is_said_by_the_ordinary_way():
    async def test(place: Stand) -> None:
        twice = b'{"model": "m", "model": "m"}'
        for body, code in (
            (twice, "bad_request"), (b"[]", "bad_request"), (b'{"model": 1}', "bad_request"),
            (b'{"model": "none"}', "model_not_found"),
            (b'{"model": "m", "a": "\xff"}', "bad_request"), (b"", "bad_request"),
        ):  # fmt: skip
            head = f"POST {FAST} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            status, _, said = await ask(place, head.encode() + body)
            assert status in (400, 404)
            assert json.loads(said)["error"]["code"] == code
        assert place.desk.asked == []

    play(test)


def test_a_kept_connection_that_the_engine_has_closed_is_replaced(way: tuple[str, ...]):
    count = 0

    async def script(reader, writer) -> None:
        nonlocal count
        count += 1
        await take(reader)
        writer.write(OK)

    async def test(place: Stand) -> None:
        reader, writer = await place.dial()
        for _ in range(5):
            writer.write(request(FAST, None, *way))
            assert (await answer_of(reader))[0] == 200
        writer.close()

    play(test, script)
    assert count == 5


def test_a_connection_to_an_engine_is_kept(way: tuple[str, ...]):
    count = 0

    async def script(reader, writer) -> None:
        nonlocal count
        count += 1
        await answering(OK)(reader, writer)

    async def test(place: Stand) -> None:
        for _ in range(5):
            assert (await ask(place, request(FAST, None, *way)))[0] == 200

    play(test, script)
    assert count == 1
