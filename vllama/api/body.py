"""What vllama reads of a request: the model's name, and how long the caller would wait."""

import json
import math
from collections.abc import Iterable

from vllama.config import PRIORITY_LIMIT
from vllama.errors import BadRequest, cited

# Keys of a body that speak to vllama, not to the engine: how long the model stays awake after this request. Taken out of it.
KEEP_KEYS = ("keep_alive", "ttl")

Headers = Iterable[tuple[bytes, bytes]]


def header(headers: Headers, name: bytes) -> str | None:
    """The first value of a header; ASGI gives names in lower case."""
    return next((value.decode("latin-1") for key, value in headers if key == name), None)


def media_type(headers: Headers) -> str:
    """What the body is said to be, without parameters and in small letters; "" where nothing is said."""
    return (header(headers, b"content-type") or "").partition(";")[0].strip().lower()


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


def priority_of(headers: Headers, at_most: int) -> int | None:
    """The request's own priority, from X-Vllama-Priority; None when it gave none: its model's then. Callers may lower it, and
    raise it as far as `priority_max` says."""
    given = header(headers, b"x-vllama-priority")
    if given is None:
        return None
    digits = given.strip().removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 4 and int(digits) <= PRIORITY_LIMIT):
        raise BadRequest(
            f"X-Vllama-Priority must be a whole number from -{PRIORITY_LIMIT} to {at_most}, not {cited(given)!r}."
        )
    priority = int(given)
    if priority > at_most:
        raise BadRequest(
            f"X-Vllama-Priority may be at most {at_most} on this server, not {priority}: its setting `priority_max` says so."
        )
    return priority


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
        raise BadRequest(f"X-Vllama-Wait-S must be a number of seconds, 0 or more, not {cited(given)!r}.")
    return wait_s
