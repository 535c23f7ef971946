"""Finds the top-level `model` of a JSON body that arrives in parts, and the pairs that are for us alone, in memory that does not
grow with the body.

The whole grammar is checked on the way, for a body that is no JSON must start no engine. Runs of plain items are swallowed
by one regular expression each, which is what makes 100 MB of numbers cheap; see design/decisions/bodies.md.
"""

import codecs
import json
import re
from enum import Enum, auto

from vllama.api.body import KEEP_KEYS
from vllama.errors import BadRequest

DEPTH_MAX = 500
TOKEN_MAX = 4096  # of a number or a word; strings have no bound
KEY_KEPT_MAX = 64  # `model` with every letter escaped has 30

_WS = r"[ \t\n\r]*"
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_SCALAR = rf"(?:{_NUMBER}|true|false|null|NaN|-?Infinity)"  # the last two are Python's: the engine reads them
_CHARS = r'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*'
_STRING = f'"{_CHARS}"'
_PLAIN = rf"(?:{_STRING}|{_SCALAR})"

_SPACE = re.compile(_WS)
_WORD = re.compile(r"[-+.0-9A-Za-z]+")
_WHOLE_SCALAR = re.compile(_SCALAR)
_STRING_PART = re.compile(_CHARS)
_ITEMS = re.compile(rf"(?:{_WS}{_PLAIN}{_WS},)+")
_PAIRS = re.compile(rf"(?:{_WS}{_STRING}{_WS}:{_WS}{_PLAIN}{_WS},)+")


class _Wants(Enum):
    """What may come next, white space aside."""

    VALUE = auto()
    ITEM_OR_END = auto()
    KEY = auto()
    KEY_OR_END = auto()
    COLON = auto()
    COMMA_OR_END = auto()
    NOTHING = auto()


class JsonScan:
    """`feed` every part, then `end`: the model's name. `span` is where its value stands, in bytes, quotes included. `said` are
    the values of the keys that speak to us, `taken` where their pairs stand, each with a comma."""

    def __init__(self) -> None:
        self.span = (0, 0)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._rest = ""
        self._before = 0  # bytes before `_rest`
        self._wants = _Wants.VALUE
        self._stack: list[str] = []
        self._in_string = False
        self._kept: list[str] | None = None  # the string being read, where it may matter
        self._kept_chars = 0
        self._is_key = False
        self._is_model = False  # the value that comes, or is being read, is the one we look for
        self._start = 0
        self._model: str | None = None
        self.said: dict[str, object] = {}
        self.taken: list[tuple[int, int]] = []
        self._ours = ""  # the key for us whose value comes, or is being read
        self._pair = 0  # where the latest pair of the top begins: with the comma before it, if there is one
        self._first = True  # what comes next is the first pair that stays
        self._open: int | None = None  # a pair that is to be taken with the comma behind it
        self._known = (0, 0)  # a place in the text, and how many bytes of it come before

    def feed(self, part: bytes) -> None:
        """The next part. Raises BadRequest as soon as the body cannot be what it must."""
        self._run(self._decode(part, final=False), final=False)

    def end(self) -> str:
        """The body is whole. Raises BadRequest."""
        self._run(self._decode(b"", final=True), final=True)
        if self._wants is not _Wants.NOTHING or self._in_string:
            raise BadRequest("The request body is not valid JSON: it ends in the middle.")
        if self._model is None:
            raise BadRequest("The request names no `model`; GET /v1/models lists those that can be used.")
        return self._model

    def _decode(self, part: bytes, *, final: bool) -> str:
        try:
            return self._decoder.decode(part, final)
        except UnicodeDecodeError as error:
            raise BadRequest(
                f"The request body is not valid JSON: it is not UTF-8 ({error.reason})."
            ) from error

    def _run(self, more: str, *, final: bool) -> None:
        text = self._rest + more
        at = 0
        self._known = (0, self._before)
        while at < len(text):
            if self._in_string:
                moved = self._string(text, at, final=final)
            else:
                at = _space(text, at)
                if at == len(text):
                    break
                moved = self._token(text, at, final=final)
            if moved == at:
                break  # the rest is not whole yet
            at = moved
        self._before += _bytes(text[:at])
        self._rest = text[at:]

    def _string(self, text: str, at: int, *, final: bool) -> int:
        """Inside a string: to its end, or as far as the text goes."""
        match = _STRING_PART.match(text, at)
        assert match is not None
        end = match.end()
        if self._kept is not None:
            self._keep(text[at:end])
        if end == len(text):
            return end
        if text[end] == '"':
            self._in_string = False
            self._string_ended(text, end + 1)
            return end + 1
        if text[end] == "\\" and len(text) - end < 6 and not final:
            # An escape that is not whole yet: what comes before it is done with.
            return end
        raise self._bad(end)

    def _keep(self, chars: str) -> None:
        assert self._kept is not None
        self._kept_chars += len(chars)
        if self._is_key and self._kept_chars > KEY_KEPT_MAX:
            self._kept = None
        else:
            self._kept.append(chars)

    def _string_ended(self, text: str, end: int) -> None:
        kept, self._kept = self._kept, None
        value = None if kept is None else json.loads(f'"{"".join(kept)}"', strict=False)
        if self._is_key:
            self._wants = _Wants.COLON
            self._is_model = value == "model" and len(self._stack) == 1
            self._ours = str(value) if value in KEEP_KEYS and len(self._stack) == 1 else ""
            if self._is_model and self._model is not None:
                raise BadRequest("The request names `model` more than once.")
            return
        self._wants = _Wants.COMMA_OR_END
        if self._ours:
            self._take(value, self._place(text, end))
        if self._is_model:
            self._is_model = False
            self._model = checked_model(value)
            self.span = (self._start, self._before + _bytes(text[:end]))

    def _token(self, text: str, at: int, *, final: bool) -> int:
        """Between strings: one token, or a run of plain items. The same place means that the token is not whole yet."""
        char = text[at]
        match self._wants:
            case _Wants.VALUE | _Wants.ITEM_OR_END:
                return self._value(text, at, char, final=final)
            case _Wants.KEY | _Wants.KEY_OR_END:
                if len(self._stack) > 1 and (run := _PAIRS.match(text, at)):
                    self._wants = _Wants.KEY
                    return run.end()
                if char == '"':
                    if self._first and len(self._stack) == 1:
                        self._pair = self._place(text, at)
                    return self._open_string(at, key=True)
                if char == "}" and self._wants is _Wants.KEY_OR_END:
                    return self._close(at)
            case _Wants.COLON if char == ":":
                self._wants = _Wants.VALUE
                return at + 1
            case _Wants.COMMA_OR_END:
                if char == ",":
                    if len(self._stack) == 1:
                        self._comma(self._place(text, at))
                    self._wants = _Wants.KEY if self._stack[-1] == "{" else _Wants.VALUE
                    return at + 1
                if char == ("}" if self._stack[-1] == "{" else "]"):
                    return self._close(at)
            case _:
                pass
        raise self._bad(at)

    def _value(self, text: str, at: int, char: str, *, final: bool) -> int:
        if not self._stack and char != "{":
            raise BadRequest("The request body must be a JSON object with a `model`.")
        if self._is_model and char != '"':
            raise BadRequest("`model` must be a string that is not empty.")
        if self._stack and self._stack[-1] == "[":
            if run := _ITEMS.match(text, at):
                self._wants = _Wants.VALUE
                return run.end()
            if char == "]" and self._wants is _Wants.ITEM_OR_END:
                return self._close(at)
        if self._ours and char in "{[":
            raise BadRequest(f"`{self._ours}` must be a number of seconds or a duration such as 5m.")
        if char in "{[":
            self._stack.append(char)
            if len(self._stack) > DEPTH_MAX:
                raise BadRequest("The request body is not valid JSON: it is nested too deeply.")
            self._wants = _Wants.KEY_OR_END if char == "{" else _Wants.ITEM_OR_END
            return at + 1
        if char == '"':
            self._start = self._before + _bytes(text[:at]) if self._is_model else 0
            return self._open_string(at, key=False)
        word = _WORD.match(text, at)
        if word is None:
            raise self._bad(at)
        if word.end() == len(text) and not final and word.end() - at <= TOKEN_MAX:
            return at
        if word.end() - at > TOKEN_MAX or _WHOLE_SCALAR.fullmatch(text, at, word.end()) is None:
            raise self._bad(at)
        self._wants = _Wants.COMMA_OR_END
        if self._ours:
            self._take(json.loads(word[0]), self._place(text, word.end()))
        return word.end()

    def _take(self, value: object, end: int) -> None:
        """A pair for us is over."""
        self.said[self._ours] = value
        self._ours = ""
        if self._first:
            self._open = self._pair
        else:
            self.taken.append((self._pair, end))

    def _comma(self, at: int) -> None:
        """Between two pairs of the top."""
        if self._open is None:
            self._first, self._pair = False, at
        else:  # what comes next is the first pair now
            self.taken.append((self._open, at + 1))
            self._open = None

    def _place(self, text: str, at: int) -> int:
        """In bytes. Asked for from left to right, so that no text is counted twice."""
        chars, there = self._known
        self._known = (at, there + _bytes(text[chars:at]))
        return self._known[1]

    def _open_string(self, at: int, *, key: bool) -> int:
        self._in_string, self._is_key = True, key
        matters = (key and len(self._stack) == 1) or (not key and bool(self._is_model or self._ours))
        self._kept, self._kept_chars = ([] if matters else None), 0
        return at + 1

    def _close(self, at: int) -> int:
        self._stack.pop()
        self._wants = _Wants.COMMA_OR_END if self._stack else _Wants.NOTHING
        return at + 1

    def _bad(self, at: int) -> BadRequest:
        return BadRequest(
            f"The request body is not valid JSON: something is wrong near byte {self._before + at}."
        )


def checked_model(value: object) -> str:
    """A model's name as a request may give it. Raises BadRequest."""
    if not isinstance(value, str) or not value:
        raise BadRequest("`model` must be a string that is not empty.")
    if not value.isprintable():
        raise BadRequest("`model` must be printable text.")
    return value


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
