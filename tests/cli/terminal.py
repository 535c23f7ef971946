"""A command on a terminal of its own: what is typed into it, and what it shows."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping

BOUND_S = 60.0
# The terminal becomes the command's own, so that Ctrl-C typed into it is a signal.
BEGIN = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.argv[0] = "vllama"
from vllama.cli.main import main
main()
"""
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|[\x01\x02\r]")


class Terminal:
    """One `vllama` command whose stdin, stdout and stderr are a terminal of this size. Use as a context manager."""

    def __init__(
        self,
        *words: str,
        env: Mapping[str, str],
        columns: int = 100,
        rows: int = 40,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._said = ""
        self._grown = threading.Condition()
        self._ended = False

        self.process = subprocess.Popen(
            [sys.executable, "-c", BEGIN, *words],
            env=dict(env) | {"TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        os.close(self._master)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the last process that had it open has ended
                data = b""
            with self._grown:
                self._said += data.decode(errors="replace")
                self._ended = not data
                self._grown.notify_all()
            if not data:
                return

    @property
    def text(self) -> str:
        """All that was shown, without the codes that draw it."""
        return CODES.sub("", self._said)

    def type(self, text: str) -> None:
        """As if typed; "\\n" is Enter, "\\x03" Ctrl-C, "\\x04" Ctrl-D."""
        os.write(self._master, text.encode())

    def until(self, wanted: str, count: int = 1) -> str:
        """Returns when this has been shown so many times."""
        with self._grown:
            there = self._grown.wait_for(lambda: self.text.count(wanted) >= count or self._ended, BOUND_S)
            assert self.text.count(wanted) >= count, (
                f"{wanted!r} was not shown ({there}):\n{self.text[-2000:]}"
            )
            return self.text

    def ask(self, line: str, prompt: str = ">>> ", end: str = "\n") -> str:
        """Type a line; what is shown until the next prompt, at which alone more may be typed."""
        before = len(self.text)
        count = self.text.count(prompt)
        self.type(line + end)
        return self.until(prompt, count + 1)[before:]

    def wait(self) -> int:
        """The exit code."""
        code = self.process.wait(BOUND_S)
        self._reader.join(BOUND_S)
        return code
