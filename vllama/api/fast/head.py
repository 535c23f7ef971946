"""The head of a request, read strictly: what two servers might read in two ways is refused, whichever way it would have gone.

h11 is the lower bound: what it rejects is rejected here, and what is accepted reads as h11 reads it (test_smuggling.py).
Beyond it, a bare LF, a folded line, a length given twice and a length beside chunks are refused as well.
"""

import re
from typing import TypeVar

V = TypeVar("V")

_TEXT = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_REQUEST = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.([01])")
LENGTH_DIGITS_MAX = 20
KEPT_MAX = 512  # heads that are remembered
KEPT_BYTES_MAX = 4096
NAMES_KEPT_MAX = 1024  # spellings of header names that are remembered
NAME_BYTES_MAX = 256


class Refused(Exception):
    """What no server should take: answered with this status, and the connection closed."""

    def __init__(self, status: int, message: str, code: str = "bad_request") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


# What a header means to the path. Numbers: they are compared for every header of every request.
_PLAIN = 0  # goes on to the engine
_DROPPED = 1  # the hop's, or nobody's business upstream
_HOST, _LENGTH, _CODING, _CONNECTION, _UPGRADE, _EXPECT, _ID, _KEY, _ORIGIN, _TYPE = range(2, 12)
_ODD = 12  # only the ordinary way knows what to do
_KINDS = {
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
    b"upgrade": _UPGRADE,
    b"expect": _EXPECT,
    b"x-request-id": _ID,
    b"authorization": _KEY,
    b"x-api-key": _KEY,
    b"origin": _ORIGIN,
    b"content-type": _TYPE,
    b"cookie": _DROPPED,
    b"keep-alive": _DROPPED,
    b"te": _DROPPED,
    b"trailer": _ODD,
    b"proxy-connection": _ODD,
    b"proxy-authenticate": _ODD,
    b"proxy-authorization": _ODD,
    b"content-encoding": _ODD,
}
_LENGTH_LINE = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]{1,20})(?=\r\n|$)")
_OURS = b"x-vllama-"
_OURS_READ = frozenset({b"x-vllama-wait-s", b"x-vllama-priority"})  # what the ordinary way reads of them
_names: dict[bytes, tuple[bytes, int]] = {}


class Head:
    """One request's head; never changed once it is read. `odd`: something in it is for the ordinary way alone."""

    __slots__ = (
        "chunked", "expects", "forward", "given_id", "hosts", "keep", "keys", "length", "method", "minor", "odd", "origin",
        "path", "target", "upgrade", "upgrades",
    )  # fmt: skip

    def __init__(self, method: bytes, target: bytes, minor: bytes) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.forward = b""  # the lines for the engine, as the client wrote them
        self.hosts = 0
        self.length: int | None = None
        self.chunked = False
        self.keep = minor == b"1"
        self.expects = False
        self.odd = minor != b"1"
        self.upgrade = b""
        self.upgrades = False  # `Connection` says so too
        self.origin = False
        self.given_id: bytes | None = None
        self.keys: list[tuple[bytes, bytes]] = []
        self.path: str | None = (
            None  # what Common makes of all this: the engine's path, "" for the ordinary way
        )

    def without_upgrade(self, data: bytes) -> bytes:
        """The same head without the wish to speak another protocol, which a server may ignore."""
        kept = [
            line
            for line in data.split(b"\r\n")
            if line.partition(b":")[0].lower() not in (b"upgrade", b"connection", b"http2-settings")
        ]
        kept.insert(1, b"connection: keep-alive" if self.keep else b"connection: close")
        return b"\r\n".join(kept)


def read_head(data: bytes) -> Head:
    """The head of a request, without the empty line at its end. Raises Refused."""
    lines = data.split(b"\r\n")
    # All that is no text: nothing but the ends of the lines may be left.
    if data.translate(None, _TEXT) != b"\r\n" * (len(lines) - 1):
        raise Refused(400, "The request's head has a control character or a line that ends without CRLF.")
    parts = _REQUEST.fullmatch(lines[0])
    if parts is None:
        raise _bad_line(lines[0])
    head = Head(parts[1], parts[2], parts[3])
    forward: list[bytes] = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        known = _names.get(name)
        name, kind = known if known is not None and colon else _name_of(name, colon)
        if kind == _PLAIN:
            forward.append(line)
        elif kind != _DROPPED:
            _take(head, name, kind, value.strip(b" \t"))
            if kind in (_ORIGIN, _TYPE):
                forward.append(line)
    if head.hosts != 1 and (head.hosts or head.minor == b"1"):
        raise Refused(400, "A request must have one Host header.")
    if head.chunked and (head.length is not None or head.minor != b"1"):
        raise Refused(400, "The request has both chunks and something that chunks do not go with.")
    forward.append(b"")
    head.forward = b"\r\n".join(forward)
    return head


def partial_fault(data: bytes) -> Refused | None:
    """What is wrong already with a head that is not whole yet."""
    rest = data.translate(None, _TEXT).replace(b"\r\n", b"")
    if data.startswith((b"\r", b"\n")) or rest not in (b"", b"\r") or (rest and not data.endswith(b"\r")):
        return Refused(400, "The request's head has a control character or a line that ends without CRLF.")
    return None


def is_field_line(line: bytes) -> bool:
    """Whether a line of trailers is one field."""
    name, colon, value = line.partition(b":")
    return bool(colon and name) and not name.translate(None, _TOKEN) and not value.translate(None, _TEXT)


def _name_of(name: bytes, colon: bytes) -> tuple[bytes, int]:
    """A header's name in small letters, and what it means. Raises Refused."""
    if not name or not colon or name.translate(None, _TOKEN):
        raise Refused(400, "The request's head has a line that is no header (or is folded).")
    lower = name.lower()
    kind = _KINDS.get(lower, _PLAIN)
    if lower.startswith(_OURS):
        kind = _ODD if lower in _OURS_READ else _DROPPED
    if len(_names) < NAMES_KEPT_MAX and len(name) <= NAME_BYTES_MAX:
        _names[name] = lower, kind
    return lower, kind


def _bad_line(line: bytes) -> Refused:
    if re.fullmatch(rb"[!-~]+ [!-~]+ HTTP/[0-9]\.[0-9]", line):
        return Refused(505, "This server speaks HTTP/1.1.", "http_version")
    return Refused(400, "The request does not begin as one of HTTP/1.1 does.")


def _take(head: Head, name: bytes, kind: int, value: bytes) -> None:
    """One header that means something to the path. Raises Refused."""
    if kind == _HOST:
        head.hosts += 1
    elif kind == _LENGTH:
        if head.length is not None:
            raise Refused(400, "The request has more than one Content-Length.")
        if not value.isdigit() or len(value) > LENGTH_DIGITS_MAX:
            raise Refused(400, "The request's Content-Length is no number.")
        head.length = int(value)
    elif kind == _CONNECTION:
        _take_connection(head, value)
    elif kind == _ID:
        head.given_id = value if head.given_id is None else head.given_id
    elif kind == _KEY:
        head.keys.append((name, value))
    elif kind == _EXPECT and value.lower() == b"100-continue":
        head.expects = True
    elif kind == _CODING:
        if head.chunked or value.lower() != b"chunked":
            raise Refused(
                501, "The only Transfer-Encoding that this server takes is chunked, once.", "not_implemented"
            )
        head.chunked = head.odd = True
    elif kind == _UPGRADE:
        if head.upgrade:
            raise Refused(400, "The request has more than one Upgrade header.")
        head.upgrade, head.odd = value.lower() or b"?", True
    elif kind == _ORIGIN:
        head.origin = True
    else:  # a body that is said to be no JSON: the ordinary way says what is wrong with it
        head.odd = head.odd or kind != _TYPE or not _is_json(value)


def _is_json(value: bytes) -> bool:
    return value.partition(b";")[0].strip(b" \t").lower() == b"application/json"


def _take_connection(head: Head, value: bytes) -> None:
    for token in value.lower().split(b","):
        match token.strip(b" \t"):
            case b"close":
                head.keep = False
            case b"keep-alive" | b"":
                pass
            case b"upgrade":
                head.upgrades = head.odd = True
            case _:
                head.odd = True


class Heads:
    """Heads that have been read, by all their bytes and by all but the length's digits: a client says the same each time."""

    def __init__(self) -> None:
        self._same: dict[bytes, tuple[Head, int | None]] = {}
        self._alike: dict[bytes, Head] = {}

    def read(self, data: bytes) -> tuple[Head, int | None]:
        """The head, and the length of the body if it says one. Raises Refused."""
        same = self._same.get(data)
        if same is not None:
            return same
        found = _LENGTH_LINE.search(data)
        if found is None or len(data) > KEPT_BYTES_MAX:
            head = read_head(data)
            return head, head.length
        begin, end = found.span(1)
        key = data[:begin] + data[end:]
        alike = self._alike.get(key)
        head = read_head(data) if alike is None else alike
        if alike is None:
            _keep(self._alike, key, head)
        _keep(self._same, data, (head, int(data[begin:end])))
        return self._same[data]


def _keep(kept: dict[bytes, V], key: bytes, value: V) -> None:
    if len(kept) >= KEPT_MAX:
        kept.clear()
    kept[key] = value
