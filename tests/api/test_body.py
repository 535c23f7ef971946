"""What is read of a request before anything is asked for: the body within its bound, the model, the caller's own bound."""

import asyncio

import pytest

from vllama.api.body import model_of, read_body, wait_of
from vllama.errors import BadRequest, BodyTooLarge


def receiver(*messages: dict):
    queue = list(messages)

    async def receive():
        return queue.pop(0)

    return receive


def part(body: bytes, *, more: bool) -> dict:
    return {"type": "http.request", "body": body, "more_body": more}


def read(*messages: dict, headers=(), bytes_max: int = 8):
    return asyncio.run(read_body(receiver(*messages), headers, bytes_max))


def test_a_body_comes_in_parts():
    assert read(part(b"abc", more=True), part(b"", more=True), part(b"def", more=False)) == b"abcdef"


def test_a_body_may_be_as_long_as_the_bound():
    assert read(part(b"12345678", more=False)) == b"12345678"


def test_a_longer_one_is_refused_at_the_part_that_passes_the_bound():
    with pytest.raises(BodyTooLarge, match="8"):
        read(part(b"12345678", more=True), part(b"9", more=True))


def test_a_declared_length_is_refused_before_a_byte_is_read():
    with pytest.raises(BodyTooLarge, match="9 bytes"):
        read(headers=[(b"content-length", b"9")])


def test_a_caller_that_leaves_in_the_middle_leaves_nothing():
    assert read(part(b"abc", more=True), {"type": "http.disconnect"}) is None


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
