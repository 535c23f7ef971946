"""What is read of a request before anything is asked for: the body within its bound, the model, the caller's own bound."""

import asyncio
import os
import re

import pytest

from vllama.api.body import model_of, wait_of
from vllama.api.request_body import read_request
from vllama.errors import BadRequest, BodyTooLarge, UnsupportedBody


def receiver(*messages: dict):
    queue = list(messages)

    async def receive():
        return queue.pop(0)

    return receive


def part(body: bytes, *, more: bool) -> dict:
    return {"type": "http.request", "body": body, "more_body": more}


def read(*messages: dict, headers=(), bytes_max: int = 2**30, form: bool = False, rename: str = ""):
    """The model and every byte that would be sent, or None."""

    async def run():
        body = await read_request(receiver(*messages), headers, bytes_max, form=form)
        if body is None:
            return None
        if rename:
            body.rename(rename)
        content = body.content()
        data = content if isinstance(content, bytes) else b"".join([block async for block in content])
        assert len(data) == body.size
        body.close()
        return body.model, data

    return asyncio.run(run())


def cut(data: bytes, size: int) -> list[dict]:
    parts = [part(data[at : at + size], more=True) for at in range(0, len(data), size)]
    return [*parts, part(b"", more=False)]


SMALL = b'{"model": "a", "x": 1}'


def test_a_body_comes_in_parts():
    halves = part(SMALL[:9], more=True), part(b"", more=True), part(SMALL[9:], more=False)
    assert read(*halves) == ("a", SMALL)


def test_a_body_may_be_as_long_as_the_bound():
    assert read(part(SMALL, more=False), bytes_max=len(SMALL)) == ("a", SMALL)


def test_a_longer_one_is_refused_at_the_part_that_passes_the_bound():
    with pytest.raises(BodyTooLarge, match="8"):
        read(part(b"12345678", more=True), part(b"9", more=True), bytes_max=8)


def test_a_declared_length_is_refused_before_a_byte_is_read():
    with pytest.raises(BodyTooLarge, match="9 bytes"):
        read(headers=[(b"content-length", b"9")], bytes_max=8)


def test_a_caller_that_leaves_in_the_middle_leaves_nothing():
    assert read(part(b"abc", more=True), {"type": "http.disconnect"}) is None
    gone = [*cut(b'{"x": "' + b"y" * 3 * 2**20, 2**16)[:-1], {"type": "http.disconnect"}]
    before = len(os.listdir("/proc/self/fd"))
    assert read(*gone) is None
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"zstd", b"deflate", b"GZIP", b"identity, gzip"])
def test_a_compressed_body_is_not_guessed_at(coding: bytes):
    with pytest.raises(UnsupportedBody, match="compressed"):
        read(part(SMALL, more=False), headers=[(b"content-encoding", coding)])


def test_one_that_says_that_it_is_not_compressed_is_taken():
    assert read(part(SMALL, more=False), headers=[(b"content-encoding", b"identity")]) == ("a", SMALL)


@pytest.mark.parametrize(
    "kind", [b"text/plain", b"application/x-www-form-urlencoded", b"application/json-patch+json", b"json"]
)
def test_a_body_that_is_said_to_be_no_json_is_refused_by_what_it_is_said_to_be(kind: bytes):
    with pytest.raises(
        UnsupportedBody, match=f"not {re.escape(kind.decode())}: send Content-Type: application/json"
    ):
        read(part(SMALL, more=False), headers=[(b"content-type", kind + b"; charset=utf-8")])


@pytest.mark.parametrize("kind", [b"application/json", b"Application/JSON ; charset=utf-8", b"", None])
def test_a_body_that_is_said_to_be_json_or_nothing_is_taken(kind: bytes | None):
    headers = [] if kind is None else [(b"content-type", kind)]
    assert read(part(SMALL, more=False), headers=headers) == ("a", SMALL)


@pytest.mark.parametrize("size", [100_000, 3 * 2**20 + 7])
@pytest.mark.parametrize("at_end", [False, True])
def test_a_large_body_goes_through_byte_for_byte_and_under_another_name(size: int, at_end: bool):
    model, rest = '"model" :  "caf\\u00e9/b" ', f'"\u00fcber": "{"z" * size}"'
    body = f"{{{rest if at_end else model}, {model if at_end else rest}}}\n".encode()
    assert read(*cut(body, 65_536)) == ("caf\u00e9/b", body)
    renamed = body.replace(b'"caf\\u00e9/b"', b'"new"')
    assert read(*cut(body, 65_536), rename="new") == ("caf\u00e9/b", renamed)


@pytest.mark.parametrize(
    "body", [b'{"model": "a"}', b'{"x": {"model": "b"}, "model": "a", "y": [{"model": 1}]}']
)
def test_the_model_is_the_one_at_the_top(body: bytes):
    assert model_of(body) == "a"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe\xfa", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b"[]", "JSON object"),
        (b'[["model", "a"]]', "JSON object"),
        (b"null", "JSON object"),
        (b'"model"', "JSON object"),
        (b"{}", "names no `model`"),
        (b'{"Model": "a"}', "names no `model`"),
        (b'{"model": "a", "model": "b"}', "more than once"),
        (b'{"model": "a", "mod\\u0065l": "a"}', "more than once"),
        (b'{"model": 1}', "must be a string"),
        (b'{"model": null}', "must be a string"),
        (b'{"model": {"a": 1}}', "must be a string"),
        (b'{"model": ""}', "must be a string"),
    ],
)
def test_what_names_no_model_is_refused(body: bytes, says: str):
    with pytest.raises(BadRequest, match=says):
        model_of(body)


@pytest.mark.parametrize(("given", "wait_s"), [(None, None), (b"0", 0.0), (b"2.5", 2.5), (b" 3 ", 3.0)])
def test_the_caller_may_bound_its_wait(given: bytes | None, wait_s: float | None):
    assert wait_of([(b"x-vllama-wait-s", given)] if given is not None else []) == wait_s


@pytest.mark.parametrize("given", [b"", b"soon", b"-1", b"nan", b"inf", b"1e999"])
def test_a_bound_that_is_none_is_refused(given: bytes):
    with pytest.raises(BadRequest, match="X-Vllama-Wait-S"):
        wait_of([(b"x-vllama-wait-s", given)])
