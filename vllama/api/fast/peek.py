"""The `model` of a small JSON body, in one look that builds nothing else of it.

None is no verdict: what is odd in any way (no JSON, no model, two of them, NaN, a name that is not text) is left to the ordinary
way, which says what is wrong or takes it after all.
"""

import json
import re

import msgspec

from vllama.api.body import KEEP_KEYS

# A body with one of these at its top is for the ordinary way: there they are seen, and taken out of what the engine gets.
HANDED_OVER = tuple(KEEP_KEYS)

_PAIR = re.compile(rb'("model"[ \t\n\r]*:[ \t\n\r]*)"(?:[^"\\]|\\.)*"')


class _Name:
    """The type of the field `model`: the decoder calls the hook for each value that it meets, so that a second one is seen."""


_seen: list[object] = []
_name = _Name()


def _hook(_: type, value: object) -> _Name:
    _seen.append(value)
    return _name


_Top = msgspec.defstruct(
    "_Top",
    [("model", _Name), *((name, msgspec.Raw, msgspec.UNSET) for name in HANDED_OVER)],
    gc=False,
)
_decode = msgspec.json.Decoder(_Top, dec_hook=_hook).decode


def model_in(body: bytes) -> str | None:
    """The model that a body surely names, and nothing in it that the ordinary way must see."""
    _seen.clear()
    try:
        top = _decode(body)
        if not body.isascii():
            body.decode()  # what is skipped is not looked at as closely by the decoder
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if len(_seen) != 1:
        return None
    for key in HANDED_OVER:
        if getattr(top, key) is not msgspec.UNSET:
            return None
    name = _seen[0]
    return name if type(name) is str and name and name.isprintable() else None


def renamed(body: bytes, model: str) -> bytes | None:
    """The same body with another `model`, every other byte as it was; None where its place is not plain to see."""
    if body.count(b'"model"') != 1 or b"\\u006" in body:
        return None
    quoted = json.dumps(model).encode()
    changed, count = _PAIR.subn(lambda match: match[1] + quoted, body, count=1)
    return changed if count else None
