"""HEAD, over plain sockets: what GET would say, without a body, and the connection goes on; 405 where there is no GET."""

import re
import socket
from collections.abc import Iterator

import pytest

from tests.api.caches import CHAT
from tests.api.raw_rig import RawRig, raw_request
from tests.api.rig import Rig
from vllama.api.routes import FORM_PATHS, JSON_PATHS

# GET /v1/responses/render asks for a response of that name.
POSTED = (
    *(path for path in JSON_PATHS if path != "/v1/responses/render"),
    *FORM_PATHS,
    "/v1/responses/resp_1/cancel",
    "/control/stop",
    "/api/chat",
)
READ = ("/v1/models", f"/v1/models/{CHAT}", "/health", "/", "/ui", "/ui/app.js", "/api/version", "/nothing", "/v1/models/no",
        "/v1/responses/no")  # fmt: skip
# What they say changes from one moment to the next.
LIVE = ("/control/ps", "/control/info", "/control/history", "/metrics", "/debug/journal", "/debug/plan", "/debug/explain",
        "/api/tags", "/api/ps")  # fmt: skip
Answer = tuple[int, dict[str, str], bytes]


class Line:
    """One connection, read byte for byte: what is left over is seen."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")

    def ask(self, method: str, path: str) -> Answer:
        self.sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return self.answer(bodyless=method == "HEAD")

    def answer(self, *, bodyless: bool = False) -> Answer:
        first, *lines = iter(lambda: self.file.readline().rstrip(b"\r\n").decode("latin-1"), "")
        assert re.fullmatch(r"HTTP/1\.1 [1-5][0-9][0-9] [A-Za-z ]+", first), first
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = b""
        if not bodyless and headers.get("transfer-encoding") == "chunked":
            while size := int(self.file.readline(), 16):
                body += self.file.read(size + 2)[:-2]
            assert self.file.readline() == b"\r\n"
        elif not bodyless:
            body = self.file.read(int(headers["content-length"]))
        return int(first.split()[1]), headers, body

    def goes_on(self, way: tuple[str, ...]) -> None:
        """The next request of the connection is served as ever."""
        self.sock.sendall(raw_request("next", way))
        assert self.answer()[0] == 200


@pytest.fixture
def line(raw_server: RawRig) -> Iterator[Line]:
    with raw_server.dial() as sock:
        yield Line(sock)


def test_where_only_post_is_served_head_is_405_and_says_so(line: Line, way: tuple[str, ...]):
    line.goes_on(way)
    for path in POSTED:
        status, headers, _ = line.ask("HEAD", path)
        assert (path, status, headers["allow"]) == (path, 405, "POST")
        line.goes_on(way)


@pytest.mark.parametrize("path", READ)
def test_head_says_what_get_says_without_its_body(line: Line, way: tuple[str, ...], path: str):
    line.goes_on(way)
    status, headers, body = line.ask("GET", path)
    assert body
    got, said, _ = line.ask("HEAD", path)
    del headers["date"], said["date"]
    assert (got, said) == (status, headers)
    line.goes_on(way)


@pytest.mark.parametrize("path", LIVE)
def test_head_of_what_changes_has_the_same_headers(line: Line, path: str):
    status, headers, body = line.ask("GET", path)
    assert body
    got, said, _ = line.ask("HEAD", path)
    assert (got, set(said), said["content-type"]) == (status, set(headers), headers["content-type"])
    line.goes_on(())


def test_head_of_a_stream_without_end_ends(line: Line):
    for path in ("/debug/events", "/debug/events?follow=0"):
        status, headers, _ = line.ask("HEAD", path)
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        line.goes_on(())


def test_head_may_be_pipelined_between_others(raw_server: RawRig, line: Line, way: tuple[str, ...]):
    asked = [b"HEAD /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", raw_request("between", way)] * 10
    line.sock.sendall(b"".join(asked))
    for number in range(20):
        status, headers, body = line.answer(bodyless=number % 2 == 0)
        assert status == 200
        assert (headers.get("x-request-id"), bool(body)) == ((None, False), ("between", True))[number % 2]


def test_head_of_a_response_asks_the_engine_that_made_it_for_a_get(rig: Rig):
    made = rig.http.post("/v1/responses", json={"model": CHAT, "input": "hi"}).raise_for_status().json()["id"]
    got = rig.http.get(f"/v1/responses/{made}").raise_for_status()
    with socket.create_connection(("127.0.0.1", rig.server.port), timeout=30) as sock:
        line = Line(sock)
        status, headers, _ = line.ask("HEAD", f"/v1/responses/{made}")
        assert (status, headers["content-length"]) == (200, str(len(got.content)))
        assert line.ask("GET", f"/v1/responses/{made}")[2] == got.content
