"""The request's body and what vllama reads of it: the model's name, and how long the caller would wait."""

import json
import math
from collections.abc import Iterable

from starlette.types import Receive

from vllama.errors import BadRequest, BodyTooLarge

Headers = Iterable[tuple[bytes, bytes]]


def header(headers: Headers, name: bytes) -> str | None:
    """The first value of a header; ASGI gives names in lower case."""
    return next((value.decode("latin-1") for key, value in headers if key == name), None)


async def read_body(receive: Receive, headers: Headers, bytes_max: int) -> bytes | None:
    """The whole body, never more than `bytes_max` of it in memory; None if the client hung up first. Raises BodyTooLarge."""
    declared = header(headers, b"content-length")
    if declared is not None and declared.isdecimal() and int(declared) > bytes_max:
        raise BodyTooLarge(f"The request body has {declared} bytes; this server takes at most {bytes_max}.")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > bytes_max:
            raise BodyTooLarge(f"The request body is longer than the {bytes_max} bytes this server takes.")
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def model_of(body: bytes) -> str:
    """The `model` of a JSON body. Two of them are refused: an engine might believe the other one.

    Objects are read as tuples of pairs, so that a repeated key is seen and a list is still told from an object.
    """
    try:
        tree = json.loads(body, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The request body is not valid JSON: {error}") from error
    if not isinstance(tree, tuple):
        raise BadRequest("The request body must be a JSON object with a `model`.")
    named = [value for key, value in tree if key == "model"]
    if not named:
        raise BadRequest("The request names no `model`; GET /v1/models lists those that can be used.")
    if len(named) > 1:
        raise BadRequest("The request names `model` more than once.")
    if not isinstance(named[0], str) or not named[0]:
        raise BadRequest("`model` must be a string that is not empty.")
    return named[0]


def with_model(body: bytes, model: str) -> bytes:
    """The same JSON object with another `model`; every other byte of it stays, numbers and spaces included."""
    text = body.decode(json.detect_encoding(body), "surrogatepass")
    decoder = json.JSONDecoder()
    at = text.index("{") + 1
    while True:
        key, at = decoder.raw_decode(text, _solid(text, at))
        begin = _solid(text, text.index(":", at) + 1)
        _, at = decoder.raw_decode(text, begin)
        if key == "model":
            return (text[:begin] + json.dumps(model) + text[at:]).encode("utf-8", "surrogatepass")
        at = text.index(",", at) + 1


def _solid(text: str, at: int) -> int:
    """The first place from `at` on that is no JSON white space."""
    while text[at] in " \t\n\r":
        at += 1
    return at


def wait_of(headers: Headers) -> float | None:
    """The caller's own bound on waiting, from X-Vllama-Wait-S; None when it gave none."""
    given = header(headers, b"x-vllama-wait-s")
    if given is None:
        return None
    try:
        wait_s = float(given)
    except ValueError:
        wait_s = math.nan
    if not math.isfinite(wait_s) or wait_s < 0:
        raise BadRequest(f"X-Vllama-Wait-S must be a number of seconds, 0 or more, not {given!r}.")
    return wait_s
