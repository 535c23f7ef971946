"""The body of a request that comes in chunks: where it ends, read as strictly as its head."""

import re

from vllama.api.fast.head import Refused, is_field_line

LINE_BYTES_MAX = 1024
TRAILERS_BYTES_MAX = 16 * 1024

_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class Chunks:
    """`feed` what comes: how much of it belongs to the body. What is to go on lies in `passed`: the body's own bytes in frames,
    without extensions and without trailers, which nobody here reads."""

    def __init__(self) -> None:
        self.ended = False
        self._line = b""  # what has come of the line that is being read
        self._left = 0  # of the chunk that is being read
        self._in_trailers = False
        self._behind = False  # the CRLF behind a chunk is next
        self._trailers = 0

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """(the bytes to pass on, how many of these bytes were the body's). Raises Refused."""
        out: list[bytes] = []
        at = 0
        while at < len(data) and not self.ended:
            if self._left:
                piece = data[at : at + self._left]
                out.append(piece)
                self._left -= len(piece)
                at += len(piece)
                self._behind = not self._left
                continue
            end = data.find(b"\n", at)
            line = self._line + data[at : len(data) if end < 0 else end + 1]
            if len(line) > LINE_BYTES_MAX:
                raise Refused(400, "The request's body has a chunk whose head is too long.")
            at = len(data) if end < 0 else end + 1
            if end < 0:
                self._line = line
                self._check_begun(line)
                break
            self._line = b""
            if not line.endswith(b"\r\n"):
                raise Refused(400, "The request's body has a chunk whose line ends without CRLF.")
            out.append(self._take(line[:-2]))
        return b"".join(out), at

    def _check_begun(self, line: bytes) -> None:
        """A line that is not whole must at least begin as one: nobody is waited for in vain."""
        if self._behind and line not in (b"", b"\r"):
            raise Refused(400, "The request's body has a chunk that is longer than it says.")

    def _take(self, line: bytes) -> bytes:
        """One whole line: what goes on for it."""
        if self._behind:
            if line:
                raise Refused(400, "The request's body has a chunk that is longer than it says.")
            self._behind = False
            return b"\r\n"
        if self._in_trailers:
            return self._trailer(line)
        size = _SIZE.fullmatch(line)
        if size is None:
            raise Refused(400, "The request's body has a chunk without a size.")
        self._left = int(size[1], 16)
        self._in_trailers = not self._left
        return b"%x\r\n" % self._left

    def _trailer(self, line: bytes) -> bytes:
        if not line:
            self.ended = True
            return b"\r\n"
        self._trailers += len(line)
        if self._trailers > TRAILERS_BYTES_MAX or not is_field_line(line):
            raise Refused(400, "The request's trailers are too long, or no headers.")
        return b""
