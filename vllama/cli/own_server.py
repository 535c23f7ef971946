"""A server for a command that needs one and finds none: a child that ends with the command, whatever ends it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from vllama.cli import render
from vllama.cli.address import DEFAULT_PORT
from vllama.cli.client import AnswerError, Client, ServerDownError
from vllama.cli.folders import config_dir

READY_S = 90.0  # it may wait for its port, a minute at most
POLL_S = 0.05
ENDED_S = 60.0


@contextmanager
def a_server(server: str | None, before: Callable[[], None]) -> Iterator[Client]:
    """The server that runs, or one of our own for as long as the body runs; what `before` raises keeps it from being started.
    One that was named by --server, or that is elsewhere, is never started. Raises ServerDownError, ValueError."""
    client = Client(server)
    try:
        client.get("/health")
    except AnswerError:  # it answers: whatever is wrong will be said by what is asked next
        pass
    except ServerDownError as error:
        if server is not None or not error.nobody:
            raise
        before()
        with _started(client) as log:
            render.complain(
                f"no server runs at {client.url}: one was started for this chat and ends with it; `vllama serve` keeps one "
                f"(its log: {log})"
            )
            yield client
        return
    yield client


@contextmanager
def _started(client: Client) -> Iterator[Path]:
    log = config_dir() / "logs" / "run-server.log"
    parts = urlsplit(client.url)
    # On loopback alone: a chat does not open this machine to others, whatever VLLAMA_HOST says.
    command = [sys.executable, "-m", "vllama.cli.main", "serve", "--host", parts.hostname or "127.0.0.1"]
    command += ["--port", str(parts.port or DEFAULT_PORT), "--ends-with", str(os.getpid())]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            # A group of its own: Ctrl-C is for the answer that is being given.
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
            )
    except OSError as error:
        raise ServerDownError(f"no server runs and none can be started: {error}") from error
    try:
        render.status("starting a server")
        _until_ready(client, child, log)
        render.status("")
        yield log
    finally:
        render.status("stopping the server")
        _end(child)
        render.status("")


def _until_ready(client: Client, child: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            lines = [line for line in _text(log).splitlines() if line.strip()] or ["it said nothing"]
            why = lines[-1].strip().removeprefix("vllama: ")
            raise ServerDownError(f"no server runs and none can be started: {why} (log: {log})")
        with suppress(ServerDownError):
            client.get("/health")
            return
        time.sleep(POLL_S)
    raise ServerDownError(
        f"the server that was started for this chat does not answer at {client.url}; its log: {log}"
    )


def _end(child: "subprocess.Popen[bytes]") -> None:
    """As a user would end it; Ctrl-C hurries it."""
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        child.send_signal(number)
        try:
            child.wait(ENDED_S)
            return
        except KeyboardInterrupt:
            continue
        except subprocess.TimeoutExpired:
            continue


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
