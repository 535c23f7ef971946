"""An engine that says byte for byte what each request tells it to, and knows when each client left. Stdlib only.

    python raw_engine.py --port N [--host H] [anything else vLLM knows]

A request for inference has in its body what is done with it: `"say"`, strings whose characters are the bytes of the parts
that are written one after another, and `"then"`. One that has neither gets JSON with its X-Request-Id and what came.

    keep     (or nothing) the next request of this connection
    close    the connection is closed
    reset    it is torn
    hold     nothing more, until the client leaves
    flood    events of 16 KB as fast as they are taken, `"events"` of them, and the end

Beyond vLLM's own endpoints:

    GET /raw/asked?id=ID   answers when a request with this X-Request-Id has been read
    GET /raw/left?id=ID    answers when its connection has ended, with the nanoseconds of the machine's monotonic clock then
    GET /raw/seen          the ids of all requests for inference so far
    GET /raw/streams       of the streams that flow now: how many there are and are held back, and the bytes of all so far
"""

import asyncio
import json
import os
import re
import signal
import socket
import struct
import sys
import time
from urllib.parse import parse_qs, urlsplit

EVENT = b"data: " + b"x" * 16_000 + b"\n\n"
FRAME = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
KERNEL_BYTES = 2**17  # of a stream, so that a thousand do not fill the machine's
RESET = struct.pack("ii", 1, 0)
# What vllama asks before an engine serves: one token that is sane.
CHOICE = {
    "index": 0,
    "text": " Paris",
    "finish_reason": "length",
    "logprobs": {
        "tokens": ["token_id:1"],
        "token_logprobs": [-0.1],
        "top_logprobs": [{"token_id:1": -0.1}],
    },
}


class Log:
    """What has happened to whom; whoever waits for it is told."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.left: dict[str, int] = {}
        self.flooding: set[Connection] = set()
        self.sent = 0
        self.changed = asyncio.Event()

    def news(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


def answer(value: object, status: str = "200 OK") -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One client, its requests one by one."""

    asleep = False  # of the engine: /is_sleeping says so

    def __init__(self, log: Log, tasks: asyncio.TaskGroup) -> None:
        self.log, self.tasks = log, tasks
        self.buffer = b""
        self.busy = False
        self.id = ""
        self.gone = asyncio.Event()
        self.taken = asyncio.Event()  # set while what is written is taken
        self.taken.set()

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)

    def eof_received(self) -> None:
        self.end()
        self.transport.abort()

    def connection_lost(self, exc) -> None:
        self.end()

    def end(self) -> None:
        if self.gone.is_set():
            return
        self.gone.set()
        self.taken.set()
        if self.id:
            self.log.left[self.id] = time.monotonic_ns()
            self.log.news()

    def pause_writing(self) -> None:
        self.taken.clear()

    def resume_writing(self) -> None:
        self.taken.set()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.next()

    def next(self) -> None:
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        length = int(found[1]) if found else 0
        if self.busy or not end or len(rest) < length:
            return
        body, self.buffer, self.busy = rest[:length], rest[length:], True
        self.tasks.create_task(self.serve(head, body))

    async def serve(self, head: bytes, body: bytes) -> None:
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        url = urlsplit(target)
        if url.path.startswith("/raw/"):
            await self.told(url.path, parse_qs(url.query).get("id", [""])[0])
        elif method == "POST" and url.path.startswith("/v1/"):
            await self.infer(head, body)
        else:
            self.control(url.path, url.query)
        self.busy = False
        self.next()

    async def told(self, path: str, wanted: str) -> None:
        log = self.log
        match path:
            case "/raw/asked":
                while wanted not in log.seen:
                    await log.changed.wait()
                self.transport.write(answer(wanted))
            case "/raw/left":
                while wanted not in log.left:
                    await log.changed.wait()
                self.transport.write(answer(log.left[wanted]))
            case "/raw/seen":
                self.transport.write(answer(log.seen))
            case _:
                held = sum(not each.taken.is_set() for each in log.flooding)
                self.transport.write(answer({"open": len(log.flooding), "held": held, "sent": log.sent}))

    def control(self, path: str, query: str) -> None:
        if path in ("/sleep", "/wake_up"):
            Connection.asleep = path == "/sleep" or "tags=weights" in query
        known = path in ("/health", "/sleep", "/wake_up", "/reset_prefix_cache", "/collective_rpc")
        if path == "/is_sleeping":
            self.transport.write(answer({"is_sleeping": Connection.asleep}))
        elif known:
            self.transport.write(answer({"status": "ok"}))
        else:
            self.transport.write(answer({"detail": "Not Found"}, "404 Not Found"))

    async def infer(self, head: bytes, body: bytes) -> None:
        found = re.search(rb"(?i)\r\nx-request-id: ([^\r]*)", head)
        asked = json.loads(body)
        if "prompt" in asked:
            self.transport.write(answer({"object": "text_completion", "choices": [CHOICE]}))
            return
        self.id = found[1].decode() if found else ""
        self.log.seen.append(self.id)
        self.log.news()
        default = [] if asked.get("then") else [answer({"id": self.id, "got": body.decode()}).decode()]
        for part in asked.get("say") or default:
            self.transport.write(part.encode("latin-1"))
            await asyncio.sleep(0)
        match asked.get("then"):
            case "close":
                self.transport.close()
            case "reset":
                sock = self.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                self.transport.abort()
            case "hold":
                await self.gone.wait()
            case "flood":
                await self.flood(int(asked["events"]))

    async def flood(self, events: int) -> None:
        self.log.flooding.add(self)
        self.transport.write(STREAM)
        for _ in range(events):
            await self.taken.wait()
            if self.gone.is_set():
                break
            self.transport.write(FRAME)
            self.log.sent += len(FRAME)
            await asyncio.sleep(0)
        else:
            self.transport.write(b"0\r\n\r\n")
        self.log.flooding.discard(self)


async def main(argv: list[str]) -> None:
    given = {name: argv[at + 1] for at, name in enumerate(argv[:-1]) if name in ("--host", "--port")}
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    log = Log()
    async with asyncio.TaskGroup() as tasks:
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(log, tasks),
            given.get("--host", "127.0.0.1"),
            int(given["--port"]),
            backlog=4096,
        )
        sys.stdout.write("INFO Application startup complete.\n")
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
