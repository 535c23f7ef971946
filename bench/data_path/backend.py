"""An engine that costs nothing: answers and streams as vLLM does, and lets vllama start, probe and wake it.

    python backend.py --port N [--host H] [--shared SOCKET] [anything else vLLM knows]

With BENCH_SHARED=SOCKET in its environment it gives its port to the backend that has `--shared SOCKET`, and is there: a hundred
engines cost the machine then what one costs.

A request whose body has no `"stream"` gets 1 KB of JSON. A streamed one gets `max_tokens` events of about 180 bytes at as many
a second as its first message says (`rate=50`; 0: the first event, then silence until the client leaves). Each event has
the moment it was sent, in nanoseconds of the machine's monotonic clock, as `t=...`.
"""

import asyncio
import json
import os
import re
import signal
import socket
import sys
import time

import httptools
import uvloop

ANSWER_BYTES = 1024
RATE = re.compile(rb"rate=(\d+)")


def json_answer(value: object, status: str = "200 OK") -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        status.encode(),
        len(body),
        body,
    )


def chat_answer() -> bytes:
    """A chat completion whose body has ANSWER_BYTES bytes."""
    usage = {"prompt_tokens": 9, "completion_tokens": 200, "total_tokens": 209}
    value = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}],
        "usage": usage,
    }
    missing = ANSWER_BYTES - len(json.dumps(value))
    value["choices"] = [
        {"index": 0, "message": {"role": "assistant", "content": "x" * missing}, "finish_reason": "stop"}
    ]
    return json_answer(value)


PROBED = {
    "choices": [
        {
            "index": 0,
            "text": " Paris",
            "finish_reason": "length",
            "logprobs": {
                "tokens": ["token_id:1"],
                "token_logprobs": [-0.1],
                "top_logprobs": [{"token_id:1": -0.1}],
            },
        }
    ]
}
CHAT = chat_answer()
COMPLETION = json_answer(
    {"id": "cmpl-bench", "object": "text_completion", "created": 1, "model": "bench"} | PROBED
)
OK = json_answer({"status": "ok"})
ABSENT = json_answer({"detail": "Not Found"}, "404 Not Found")
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1,"model":"bench",'
    b'"choices":[{"index":0,"delta":{"content":"t=%d "},"logprobs":null,"finish_reason":null}]}\n\n'
)
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Sleep:
    """What /is_sleeping says of one engine."""

    now = False


class Connection(asyncio.Protocol):
    """One client, its requests one by one; a stream ends with its connection."""

    def __init__(self, sleep: Sleep) -> None:
        self.sleep = sleep

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""
        self.left = 0
        self.every_s = 0.0
        self.next_at = 0.0
        self.timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_url(self, url: bytes) -> None:
        self.path = url.partition(b"?")[0]
        self.query = url

    def on_message_begin(self) -> None:
        self.body = b""

    def on_body(self, body: bytes) -> None:
        self.body = self.body + body if self.body else body

    def on_message_complete(self) -> None:
        match self.path:
            case b"/v1/chat/completions":
                if b'"stream"' in self.body and (asked := json.loads(self.body)).get("stream"):
                    rate = RATE.search(self.body)
                    self.stream(int(asked.get("max_tokens") or 1), int(rate[1]) if rate else 0)
                else:
                    self.transport.write(CHAT)
            case b"/v1/completions":
                self.transport.write(COMPLETION)
            case b"/sleep" | b"/wake_up":
                self.sleep.now = self.path == b"/sleep" or b"tags=weights" in self.query
                self.transport.write(OK)
            case b"/is_sleeping":
                self.transport.write(json_answer({"is_sleeping": self.sleep.now}))
            case b"/health" | b"/reset_prefix_cache" | b"/collective_rpc":
                self.transport.write(OK)
            case _:
                self.transport.write(ABSENT)

    def stream(self, events: int, rate: int) -> None:
        self.left = events
        self.transport.write(STREAM_HEAD)
        loop = asyncio.get_running_loop()
        self.next_at = loop.time()
        self.every_s = 1 / rate if rate else 0.0
        self.tick()

    def tick(self) -> None:
        """One event; the next one is due at its place in the beat, however late this one was."""
        event = EVENT % time.monotonic_ns()
        self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        self.left -= 1
        if self.left <= 0:
            self.transport.write(DONE)
        elif self.every_s:
            self.next_at += self.every_s
            self.timer = asyncio.get_running_loop().call_at(self.next_at, self.tick)


def listener(host: str, port: int) -> socket.socket:
    sock = socket.create_server((host, port), backlog=4096)
    sock.setblocking(False)
    return sock


async def serve(sock: socket.socket) -> None:
    sleep = Sleep()
    await asyncio.get_running_loop().create_server(lambda: Connection(sleep), sock=sock)


async def take_over(path: str) -> None:
    """Serve on what others give to this unix socket; the word back says that it is served."""
    loop = asyncio.get_running_loop()

    async def one(giver: socket.socket) -> None:
        with giver:
            _, fds, _, _ = socket.recv_fds(giver, 1, 1)
            await serve(socket.socket(fileno=fds[0]))
            giver.send(b"!")

    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen(1024)
        sock.setblocking(False)
        while True:
            giver, _ = await loop.sock_accept(sock)
            giver.setblocking(True)
            await one(giver)


def give(sock: socket.socket, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as taker:
        taker.connect(path)
        socket.send_fds(taker, [b"!"], [sock.fileno()])
        taker.recv(1)


async def main(argv: list[str]) -> None:
    given = {
        name: argv[at + 1] for at, name in enumerate(argv[:-1]) if name in ("--host", "--port", "--shared")
    }
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    sock = listener(given.get("--host", "127.0.0.1"), int(given.get("--port", "0")))
    if shared := os.environ.get("BENCH_SHARED"):
        give(sock, shared)
    else:
        await serve(sock)
    print(f"INFO Application startup complete on {sock.getsockname()[1]}.", flush=True)
    async with asyncio.TaskGroup() as tasks:
        if "--shared" in given:
            tasks.create_task(take_over(given["--shared"]))
        await ended.wait()
        os._exit(0)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:]))
