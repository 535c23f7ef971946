"""The head of an engine's answer: read strictly, and remembered, for an engine says the same each time."""

import re

_TEXT = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: .*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH_LINE = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,20})(?=\r\n|$)")
KEPT_MAX = 256  # heads that are remembered; their date makes new ones every second
KEPT_BYTES_MAX = 4096
NAMES_KEPT_MAX = 256
_names: dict[bytes, bytes] = {}


class LinkBroken(Exception):
    """The engine's connection ended before its answer did, or the answer is no HTTP."""


class Answer:
    """A head without its length, never changed once it is read; names in small letters."""

    __slots__ = ("chunked", "headers", "keep", "lines", "status", "streams")

    def __init__(self, status: int, keep: bool) -> None:
        self.status = status
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunked = False
        self.keep = keep
        self.streams = False  # events
        self.lines: bytes | None = None  # what of it goes on to clients, once somebody has made it


class Answers:
    """Heads that have been read, by all their bytes, and by all but the digits of the length."""

    def __init__(self) -> None:
        self._same: dict[bytes, tuple[Answer, int | None]] = {}
        self._alike: dict[bytes, Answer] = {}

    def read(self, data: bytes) -> tuple[Answer, int | None]:
        """The head, and how long the body is if it says so. Raises LinkBroken."""
        same = self._same.get(data)
        if same is not None:
            return same
        if len(data) > KEPT_BYTES_MAX:
            return read_answer(data)
        found = _LENGTH_LINE.search(data)
        key = data if found is None else data[: found.start(1)] + data[found.end(1) :]
        answer = self._alike.get(key)
        if answer is None or answer.chunked:
            answer, length = read_answer(data)
        else:
            length = None if found is None else int(found[1])
        for kept in (self._same, self._alike):
            if len(kept) >= KEPT_MAX:
                kept.clear()
        self._same[data], self._alike[key] = (answer, length), answer
        return answer, length


def read_answer(data: bytes) -> tuple[Answer, int | None]:
    """The head of an answer, and its length. Raises LinkBroken."""
    lines = data.split(b"\r\n")
    status = _STATUS.fullmatch(lines[0])
    if status is None or data.translate(None, _TEXT) != b"\r\n" * (len(lines) - 1):
        raise LinkBroken("its answer is no HTTP")
    answer, length = Answer(int(status[2]), status[1] == b"1"), None
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        lower = (_names.get(name) if colon else None) or _lower(name, colon)
        value = value.strip(b" \t")
        if lower == b"content-length":
            if not value.isdigit() or length not in (None, int(value)):
                raise LinkBroken("its answer has a length that is none, or two")
            length = int(value)
            continue
        if lower == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise LinkBroken("its answer is coded in a way that nobody asked for")
            answer.chunked = True
        elif lower == b"connection":
            tokens = value.lower()
            answer.keep = (answer.keep or b"keep-alive" in tokens) and b"close" not in tokens
        elif lower == b"content-type":
            answer.streams = value.startswith(b"text/event-stream")
        answer.headers.append((lower, value))
    return answer, None if answer.chunked else length


def _lower(name: bytes, colon: bytes) -> bytes:
    if not colon or _NAME.fullmatch(name) is None:
        raise LinkBroken("its answer has a line that is no header")
    lower = name.lower()
    if len(_names) < NAMES_KEPT_MAX:
        _names[name] = lower
    return lower
