"""The load: a process that plays one job at a time, told by a line of JSON on stdin, answered by one on stdout.

Jobs: {"do": "requests", "port", "models", "connections", "body_bytes", "seconds", "pids"}  a closed loop;
          "parts": {name: pids} counts some processes apart
      {"do": "streams", "port", "models", "connections", "rate", "seconds", "pids"}         what streams pass in a window
      {"do": "open", "port", "models", "connections"} ... {"do": "close"}                   idle streams, held until close

The window begins after a warm-up. `pids` are the processes whose CPU is counted in the window, by this process itself, so that
the count of requests and the count of nanoseconds have the same ends.
"""

import asyncio
import json
import re
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import httptools
import uvloop
from cpu import cpu_ns

WARM_SHARE = 0.25
WARM_S_MIN = 0.3
# A slow subject has its window drawn out until it has done so much, or until so long.
DONE_MIN = 40
WINDOW_S_MAX = 10.0
OPEN_TIMEOUT_S = 120
OPENED_AT_ONCE = 50
SLACK_S = (
    2  # streams end so long after the window, also where nobody tells the backend that the client has left
)
STAMP = re.compile(rb"t=(\d+) ")

Job = dict[str, Any]


class BenchError(Exception):
    """The subject answered what it must not."""


def request(model: str, body_bytes: int = 1024, text: str = "", **more: object) -> bytes:
    """A chat that begins with this text and whose body has so many bytes."""
    fields: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]} | more
    missing = body_bytes - len(json.dumps(fields))
    fields["messages"] = [{"role": "user", "content": text + "x" * missing}]
    body = json.dumps(fields).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nUser-Agent: bench\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Tally:
    """What the connections have counted since the window began."""

    def __init__(self) -> None:
        self.failure = ""
        self.clear()

    def clear(self) -> None:
        self.done = 0
        self.enough = asyncio.Event()
        self.times = array("q")  # nanoseconds: latencies of requests, or delays of events

    def count(self, took_ns: int) -> None:
        self.times.append(took_ns)
        self.done += 1
        if self.done == DONE_MIN:
            self.enough.set()

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        if not self.times:
            return 0.0
        ordered = sorted(self.times)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] / 1e6


class Client(asyncio.Protocol):
    """One connection that asks, and asks again when it is answered. It reads events' stamps in streams."""

    def __init__(self, asks: Iterator[bytes], tally: Tally, again: bool) -> None:
        self.asks, self.tally, self.again = asks, tally, again
        self.begun = asyncio.Event()
        self.answered = False
        self.tail = b""
        self.leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)
        self.ask()

    def ask(self) -> None:
        self.asked_at = time.monotonic_ns()
        self.transport.write(next(self.asks))

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        if self.answered:
            self.answered = False
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.leaving:
            self.tally.failure = self.tally.failure or f"the connection was closed: {exc!r}"
            self.begun.set()

    def leave(self) -> None:
        self.leaving = True
        self.transport.abort()

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status != 200:
            self.tally.failure = self.tally.failure or f"an answer with status {status}"

    def on_body(self, body: bytes) -> None:
        if self.again:
            return
        now = time.monotonic_ns()
        data = self.tail + body
        at = 0
        for stamp in STAMP.finditer(data):
            self.tally.count(now - int(stamp[1]))
            at = stamp.end()
        if at:
            self.begun.set()
        self.tail = data[max(at, len(data) - 32) :]

    def on_message_complete(self) -> None:
        if self.again:
            self.tally.count(time.monotonic_ns() - self.asked_at)
            self.answered = True


async def connect(
    job: Job, asks: list[bytes], tally: Tally, *, again: bool, begun: bool = False
) -> list[Client]:
    """So many connections, each with its first request sent; a few at a time, if each stream is to have begun."""
    loop = asyncio.get_running_loop()
    turns = (asks[number % len(asks)] for number in count())
    clients: list[Client] = []
    while len(clients) < job["connections"]:
        some = min(OPENED_AT_ONCE, job["connections"] - len(clients))
        made = [
            await loop.create_connection(lambda: Client(turns, tally, again), "127.0.0.1", job["port"])
            for _ in range(some)
        ]
        clients += [client for _, client in made]
        if begun:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                for _, client in made:
                    await client.begun.wait()
    return clients


async def window(job: Job, tally: Tally) -> dict[str, float]:
    """What was done between two moments, and the CPU it took."""
    await asyncio.sleep(max(WARM_S_MIN, job["seconds"] * WARM_SHARE))
    tally.clear()
    began, used, own = time.monotonic_ns(), cpu_ns(job["pids"]), time.process_time_ns()
    parts = {name: cpu_ns(pids) for name, pids in job.get("parts", {}).items()}
    await asyncio.sleep(job["seconds"])
    with suppress(TimeoutError):
        async with asyncio.timeout(WINDOW_S_MAX - job["seconds"]):
            await tally.enough.wait()
    done, used = tally.done, cpu_ns(job["pids"]) - used
    took, own = time.monotonic_ns() - began, time.process_time_ns() - own
    parts = {name: cpu_ns(job["parts"][name]) - before for name, before in parts.items()}
    if not done:
        raise BenchError(f"nothing was answered in {WINDOW_S_MAX} s")
    return {
        "done": done,
        "per_s": done / took * 1e9,
        "cpu_us": used / done / 1e3,
        "cpu_share": used / took,
        "load_share": own / took,
        **{f"{name}_us": used / done / 1e3 for name, used in parts.items()},
        "p50_ms": tally.percentile(0.5),
        "p99_ms": tally.percentile(0.99),
    }


async def requests(job: Job) -> dict[str, float]:
    tally = Tally()
    asks = [request(model, job["body_bytes"]) for model in job["models"]]
    clients = await connect(job, asks, tally, again=True)
    try:
        return checked(await window(job, tally), tally)
    finally:
        for client in clients:
            client.leave()


async def streams(job: Job) -> dict[str, float]:
    tally = Tally()
    clients = await connect(job, stream_asks(job), tally, again=False)
    try:
        return checked(await window(job, tally), tally)
    finally:
        for client in clients:
            client.leave()


def stream_asks(job: Job) -> list[bytes]:
    rate = job.get("rate", 0)
    events = int(rate * (job["seconds"] * (1 + WARM_SHARE) + SLACK_S)) if rate else 2
    return [request(model, text=f"rate={rate} ", stream=True, max_tokens=events) for model in job["models"]]


def checked(result: dict[str, float], tally: Tally) -> dict[str, float]:
    if tally.failure:
        raise BenchError(tally.failure)
    return result


async def main() -> None:
    held: list[Client] = []
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        job = json.loads(line)
        result: dict[str, object] = {}
        try:
            match job["do"]:
                case "requests":
                    result |= await requests(job)
                case "streams":
                    result |= await streams(job)
                case "open":
                    tally = Tally()
                    held += await connect(job, stream_asks(job), tally, again=False, begun=True)
                    checked({}, tally)
                case "close":
                    for client in held:
                        client.leave()
                    held.clear()
        except (BenchError, OSError, TimeoutError) as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
