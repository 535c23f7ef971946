"""Engines' log files: their names, their tails, their bound. Engines hold the descriptor (O_APPEND), so a log is
copied and truncated, never renamed."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

TAIL_BYTES_MAX = 4096
TAIL_LINES_MAX = 20
SOUGHT_BYTES_MAX = 2**16  # where a tail is looked for
# What vLLM's server writes of each request, health checks included: among it what matters would be lost.
_OF_A_REQUEST = re.compile(
    r'(?:\(\w+ pid=\d+\) )?INFO:\s+\S+ - "(?:[A-Z]+ \S+ HTTP/[0-9.]+" [0-9]{3}\b|WebSocket )'
)


def log_path(folder: Path, model: str, port: int) -> Path:
    """`{model}_{port}.log`, made safe: `/` becomes `--`, and no name leaves the folder or hides in it."""
    name = re.sub(r"[^\w.+@=-]", "_", model.replace("/", "--"))
    name = re.sub(r"^\.", "_", name)[:180]
    return folder / f"{name}_{port}.log"


def size_of(path: Path) -> int:
    """Bytes of the log; 0 while there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def read_span(path: Path, offset: int, bytes_max: int) -> bytes:
    """At most `bytes_max` bytes from `offset` on; b"" where there is nothing."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(bytes_max)
    except OSError:
        return b""


def tail(path: Path, start: int, bytes_max: int = TAIL_BYTES_MAX, lines_max: int = TAIL_LINES_MAX) -> str:
    """The last whole lines of what was written from `start` on, without those of single requests."""
    begin = max(start, size_of(path) - SOUGHT_BYTES_MAX)
    text = read_span(path, begin, SOUGHT_BYTES_MAX).decode("utf-8", "replace")
    lines = text.splitlines()
    if begin > start and len(lines) > 1:
        lines = lines[1:]  # cut in the middle
    kept = "\n".join([line.rstrip() for line in lines if not _OF_A_REQUEST.match(line)][-lines_max:]).strip()
    if len(kept) > bytes_max:
        kept = kept[-bytes_max:]
        kept = kept.partition("\n")[2] or kept
    return kept


def truncate_if_long(path: Path, bytes_max: int) -> bool:
    """A log past the bound is kept once more as `NAME.1` and begins again at nothing. True if it was so.

    What engines write between the copy and the cut is lost: the price of a descriptor that nobody can take from them.
    """
    if size_of(path) <= bytes_max:
        return False
    with suppress(FileNotFoundError):
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)
        return True
    return False


def last_lines(path: Path, lines: int, block_bytes: int = 2**16) -> tuple[bytes, int]:
    """The last `lines` lines, and the place behind them."""
    end = at = size_of(path)
    text = b""
    while at > 0 and text.count(b"\n") <= lines:
        begin = max(at - block_bytes, 0)
        text = read_span(path, begin, at - begin) + text
        at = begin
    kept = text.splitlines(keepends=True)[-lines:] if lines else []
    return b"".join(kept), end
