"""A command in the tests' own process, told as if it had one of its own: a Python of its own is half a second, and what starting
one is like is asked of the commands that the tests still start."""

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout

import pytest

from vllama.cli.main import main


def vllama(*words: object, env: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Nobody is at a terminal. With `env`, that is all of its environment."""
    command = ["vllama", *map(str, words)]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", command)
        patch.setattr(sys, "stdin", io.StringIO())
        if env is not None:
            for name in os.environ.keys() - env.keys():
                patch.delenv(name)
            for name, value in env.items():
                patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
    return subprocess.CompletedProcess(command, _code(ended.value), _text(out), _text(err))


def _code(ended: SystemExit) -> int:
    assert isinstance(ended.code, int), ended.code
    return ended.code


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()
