"""Requests that a client sends before the one before is answered, over both ways of the data path."""

import asyncio

from tests.api.front_rig import FAST, OK, ORDINARY, Stand, answer_of, play, request, take
from vllama.api.fast.front import HELD_BYTES_MAX


def test_one_connection_takes_requests_of_both_ways_in_turn_and_pipelined(way: tuple[str, ...]):
    async def test(place: Stand) -> None:
        reader, writer = await place.dial()
        both = [request(FAST, None, *way), request(ORDINARY, method="GET"), request(FAST)]
        for data in both:
            writer.write(data)
            assert (await answer_of(reader))[0] == 200
        writer.write(b"".join(both * 5))
        for _ in range(15):
            assert (await answer_of(reader))[0] == 200
        assert len(place.seen) == 6
        await place.until(lambda: not place.desk.out)
        writer.close()

    play(test)


def test_who_pipelines_without_end_is_not_read(way: tuple[str, ...]):
    gate = asyncio.Event()

    async def script(reader, writer) -> None:
        await take(reader)
        await gate.wait()
        writer.write(OK)

    async def test(place: Stand) -> None:
        reader, writer = await place.dial()
        writer.write(request(FAST, None, *way))
        await place.until(lambda: bool(place.desk.out))
        writer.write(request(ORDINARY, {"a": "b" * 4000}) * 100)
        (front,) = place.common.connections
        await place.until(lambda: len(front._held) > HELD_BYTES_MAX)
        held = len(front._held)
        assert held < 2**20
        gate.set()
        for _ in range(101):
            assert (await answer_of(reader))[0] == 200
        writer.close()

    play(test, script)


def test_who_is_not_read_and_leaves_is_noticed(way: tuple[str, ...]):
    """Before its answer comes, and before what it has sent too early is read."""
    asked, closed = asyncio.Event(), asyncio.Event()

    async def script(reader, writer) -> None:
        await take(reader)
        asked.set()
        await reader.read()
        closed.set()

    async def test(place: Stand) -> None:
        _, writer = await place.dial()
        writer.write(request(FAST, None, *way))
        await asked.wait()
        writer.write(request(ORDINARY, {"a": "b" * 4000}) * 20)
        (front,) = place.common.connections
        await place.until(lambda: front._held_up)
        writer.transport.abort()
        await closed.wait()
        await place.until(lambda: not place.common.connections and not place.desk.out)
        assert not place.common.departures.watched

    play(test, script)
