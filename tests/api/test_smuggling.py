"""What two servers might read in two ways goes no way here: a table, over both paths, whole and byte by byte; h11 is the lower
bound of what is refused, and what is taken reads as h11 reads it."""

import asyncio
import json
import random
import re

import h11
import pytest

from tests.api.front_rig import FAST, ORDINARY, Stand, request, stand
from tests.api.smuggling import REFUSED, TAKEN
from vllama.api.fast.chunks import Chunks
from vllama.api.fast.head import Heads, Refused, partial_fault

Read = tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]
HEAD_BYTES_MAX = 2**16


def ours(data: bytes) -> Read | None:
    """Method, target, headers and body; None where it is refused, or never ends."""
    end = data.find(b"\r\n\r\n")
    if end < 0 or end > HEAD_BYTES_MAX:
        return None
    assert partial_fault(data[: end + 2]) is None or not _taken(data[:end])
    try:
        head, length = Heads().read(data[:end])
        if head.method == b"CONNECT" or (head.upgrade == b"websocket" and length):
            return None
        body = data[end + 4 :]
        if head.chunked:
            chunks = Chunks()
            passed, _ = chunks.feed(body)
            if not chunks.ended:
                return None
            body = _unframed(passed)
        elif len(body) < (length or 0):
            return None
        else:
            body = body[: length or 0]
    except Refused:
        return None
    lines = [line.partition(b":") for line in data[:end].split(b"\r\n")[1:]]
    headers = [(name.lower(), value.strip(b" \t")) for name, _, value in lines]
    return head.method, head.target, headers, body


def _taken(data: bytes) -> bool:
    try:
        Heads().read(data)
    except Refused:
        return False
    return True


def _unframed(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        body, data = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


def h11s(data: bytes) -> Read | None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
    connection.receive_data(data)
    request, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                return (
                    request.method,
                    request.target,
                    [(bytes(n), bytes(v)) for n, v in request.headers],
                    body,
                )
            else:
                return None
    except h11.RemoteProtocolError:
        return None


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in REFUSED])
def test_a_doubtful_request_is_refused(data: bytes):
    assert ours(data) is None


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in TAKEN])
def test_what_is_taken_reads_as_h11_reads_it(data: bytes):
    read = ours(data)
    assert read is not None
    theirs = h11s(data)
    assert theirs is not None
    # h11 says a length without its zeros, and a coding in small letters.
    assert read[:2] + read[3:] == theirs[:2] + theirs[3:]
    same = [(name, value) for name, value in read[2] if name not in (b"content-length", b"transfer-encoding")]
    assert same == [pair for pair in theirs[2] if pair[0] not in (b"content-length", b"transfer-encoding")]


def test_there_are_enough_cases():
    assert len(REFUSED) >= 100
    assert len({name for name, _ in REFUSED + TAKEN}) == len(REFUSED) + len(TAKEN)


def test_whatever_h11_rejects_is_rejected_and_the_rest_reads_the_same():
    """Requests with a few bytes changed, in every way that a seed says."""
    chance = random.Random(20261126)
    bits = [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b"0", b",", b";", b"\x7f", b"\xff", b"chunked", b"Host: x\r\n",
            b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.0"]  # fmt: skip
    seeds = [data for _, data in TAKEN] * 4 + [data for _, data in REFUSED if len(data) < 300]
    taken = 0
    for _ in range(20_000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data))
            data[at : at + chance.randint(0, 2)] = chance.choice(bits)
        read = ours(bytes(data))
        if read is not None:
            taken += 1
            theirs = h11s(bytes(data))
            assert theirs is not None, bytes(data)
            assert (read[:2], read[3]) == (theirs[:2], theirs[3]), bytes(data)
    assert taken > 500


def on(path: str, data: bytes) -> bytes:
    """The same case on a path of ours."""
    method = b"POST" if path == FAST and b"websocket" not in data else b"GET"
    for begin in (b"GET / ", b"POST / "):
        if data.startswith(begin):
            return method + b" " + path.encode() + b" " + data[len(begin) :]
    return data


async def refused_on(place: Stand, data: bytes, *, apart: bool) -> None:
    answer = await place.say(data, apart=apart)
    if apart and not answer:
        return  # hung up on in the middle of a byte's way: the answer is lost with the connection
    status, _, rest = answer.partition(b"\r\n")
    assert status.split()[1] in (b"400", b"405", b"431", b"501", b"505"), (data[:200], answer[:200])
    assert b"connection: close" in rest
    assert re.search(rb"HTTP/1.1 [0-9]", rest) is None, (
        data[:200],
        answer,
    )  # one answer, whatever was hidden behind
    assert json.loads(rest.partition(b"\r\n\r\n")[2])["error"]["message"]


@pytest.mark.parametrize("path", [FAST, ORDINARY])
def test_over_a_socket_each_is_refused_and_reaches_nobody(path: str):
    async def main() -> None:
        async with stand() as place:
            hidden = request(FAST) + request(ORDINARY, method="GET")
            for _, data in REFUSED:
                await refused_on(place, on(path, data) + hidden, apart=False)
            for _, data in REFUSED:
                if len(data) < 300:
                    # What is behind the fault is not sent: the server has hung up by then.
                    await refused_on(place, on(path, data), apart=True)
            # A body in chunks is read as it comes: its beginning has been told to the application, its end never is.
            assert place.seen == []
            assert place.desk.asked == []

    asyncio.run(main())
