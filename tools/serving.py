"""A real `vllama serve` in a process of its own: started, watched, ended, and searched for what it left.

The demo, the tests and the benches use it.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

TAG = "SERVING_RUN_TAG"
POLL_S = 0.05
PORTS = (10_000, 30_000)
LOG_TAIL_LINES = 40


class ServerError(Exception):
    """The server did not do what it must; the message ends with its log's last lines."""


@dataclass(frozen=True)
class Proc:
    """One process for ever: a pid may be given again, pid and start time together may not."""

    pid: int
    started: int


@dataclass(frozen=True)
class Stat:
    """What /proc/PID/stat says of a process."""

    proc: Proc
    parent: int
    state: str
    name: str


def stat_of(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Stat(Proc(pid, int(fields[19])), int(fields[1]), fields[0], head.partition("(")[2])


def all_stats() -> list[Stat]:
    stats = (stat_of(int(entry)) for entry in os.listdir("/proc") if entry.isdecimal())
    return [stat for stat in stats if stat is not None]


def descendants(pid: int) -> set[Proc]:
    """Every process below `pid`, itself left out."""
    children: dict[int, list[Stat]] = {}
    for stat in all_stats():
        children.setdefault(stat.parent, []).append(stat)
    found: set[Proc] = set()
    queue = [pid]
    while queue:
        for stat in children.get(queue.pop(), []):
            found.add(stat.proc)
            queue.append(stat.proc.pid)
    return found


def tagged(tag: str) -> set[Proc]:
    """Every process that inherited the tag in its environment. One that rewrote its title may have lost it."""
    needle = f"{TAG}={tag}".encode()
    found = set()
    for stat in all_stats():
        try:
            if needle in Path(f"/proc/{stat.proc.pid}/environ").read_bytes().split(b"\0"):
                found.add(stat.proc)
        except OSError:
            continue  # it has ended, or is not ours
    return found


def pss_bytes(pid: int) -> int:
    """The process's proportional share of its memory."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ServerError(f"/proc/{pid}/smaps_rollup has no Pss line")


def free_port() -> int:
    """A port that nobody listens on. Below those that the kernel gives to clients: between this look and the server's own
    bind, another test's connection would sit on one of them."""
    while True:
        port = random.SystemRandom().randrange(*PORTS)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_until(happened: Callable[[], bool], timeout_s: float) -> bool:
    """Whether it happened within the bound. For what another process does and nothing reports."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


@dataclass
class Vllama:
    """One `vllama serve`. `folder` takes its settings and logs; nothing of the caller's VLLAMA_* reaches it."""

    folder: Path
    cache: Path
    env: Mapping[str, str] = field(default_factory=dict)
    memory_limit: str = ""
    args: tuple[str, ...] = ()
    own_group: bool = False
    port: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config_dir = self.folder / "config"
        self.config_dir.mkdir(exist_ok=True)
        self.log = self.folder / "server.log"
        self.port = self.port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.tag = uuid.uuid4().hex
        self.process: subprocess.Popen[bytes] | None = None
        self._seen: set[Proc] = set()

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def environ(self) -> dict[str, str]:
        """What the server's process gets; the CLI's too."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("VLLAMA_")}
        env |= {
            TAG: self.tag,
            "VLLAMA_CONFIG_DIR": str(self.config_dir),
            "VLLAMA_TRANSFORMERS_CACHE": str(self.cache),
            "VLLAMA_URL": self.url,
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }
        if self.memory_limit:
            env["VLLAMA_MEMORY_LIMIT"] = self.memory_limit
        return env | dict(self.env)

    def launch(self) -> None:
        """Create the process; `wait_healthy` says when it serves."""
        command = [sys.executable, "-m", "vllama.cli.main", "serve", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), *self.args]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0 if self.own_group else None,
            )

    def wait_healthy(self, timeout_s: float = 30) -> None:
        """Returns when GET /health answers 200. Raises ServerError when the process ends or the bound passes first."""
        process = self._running()
        with httpx.Client(trust_env=False) as client:

            def answered() -> bool:
                if process.poll() is not None:
                    raise ServerError(f"vllama serve ended with {process.returncode}{self.log_tail()}")
                try:
                    return client.get(f"{self.url}/health", timeout=5).status_code == 200
                except httpx.TransportError:
                    return False

            if not wait_until(answered, timeout_s):
                raise ServerError(f"vllama serve did not answer /health in {timeout_s:g} s{self.log_tail()}")

    def start(self, timeout_s: float = 30) -> "Vllama":
        self.launch()
        try:
            self.wait_healthy(timeout_s)
        except BaseException:
            self.kill()
            raise
        return self

    def look(self) -> set[Proc]:
        """The server's processes now, itself left out. What was seen once is searched for when it has ended."""
        if self.process is not None:
            self._seen |= descendants(self.process.pid)
        return {proc for proc in self._seen if (stat := stat_of(proc.pid)) is not None and stat.proc == proc}

    def left(self) -> list[str]:
        """What lives, or is a zombie, of all that belongs to this server, itself left out.

        A zombie whose parent is process 1 is not counted: in a container nobody may reap there, and it holds nothing.
        """
        own = self.process.pid if self.process is not None else 0
        names = []
        for proc in sorted((self._seen | tagged(self.tag)), key=lambda proc: proc.pid):
            stat = stat_of(proc.pid)
            if (
                stat is None
                or stat.proc != proc
                or proc.pid == own
                or (stat.state == "Z" and stat.parent == 1)
            ):
                continue
            names.append(f"{proc.pid} {stat.name} state {stat.state} parent {stat.parent}")
        return names

    def wait_nothing_left(self, timeout_s: float) -> list[str]:
        """What is still there after the bound; empty as soon as nothing is."""
        left: list[str] = []

        def gone() -> bool:
            left[:] = self.left()
            return not left

        wait_until(gone, timeout_s)
        return left

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 60) -> int:
        """Signals the server and returns its exit status. Raises ServerError when it does not end in time."""
        process = self._running()
        self.look()
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(
                f"vllama did not end {timeout_s:g} s after {number.name}{self.log_tail()}"
            ) from None

    def end(self, timeout_s: float = 60) -> None:
        """Stops the server as a user would. Raises ServerError unless it exits 0 and leaves no process behind."""
        status = self.stop(timeout_s=timeout_s)
        if status != 0:
            self.kill()
            raise ServerError(f"vllama serve exited with {status}, not 0{self.log_tail()}")
        if left := self.left():
            self.kill()
            raise ServerError("vllama serve left processes behind:\n  " + "\n  ".join(left) + self.log_tail())

    def kill(self) -> None:
        """Ends by SIGKILL whatever is there of this server; for the way out of a failure. Never raises."""
        self.look()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for proc in self._seen | tagged(self.tag):
            stat = stat_of(proc.pid)
            if stat is not None and stat.proc == proc:
                try:
                    os.kill(proc.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def log_tail(self) -> str:
        """The last lines of the server's log, to end an error message with."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
        except OSError:
            return ""
        return f"\n--- the last lines of {self.log} ---\n" + "\n".join(lines) if lines else ""

    def cli(self, *args: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
        """One `vllama` command against this server."""
        command = [sys.executable, "-m", "vllama.cli.main", *args]
        return subprocess.run(
            command,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def get(self, path: str) -> Any:
        """The JSON of one GET."""
        return httpx.get(self.url + path, timeout=60, trust_env=False).raise_for_status().json()

    def events(self, since: int = 0) -> list[dict[str, Any]]:
        """The journal's records after `since`, as far as there are any now."""
        answer = httpx.get(
            f"{self.url}/debug/events", params={"since": since, "follow": 0}, timeout=60, trust_env=False
        ).raise_for_status()
        data = [line[5:] for line in answer.text.splitlines() if line.startswith("data:")]
        return [json.loads(text) for text in data]

    def _running(self) -> "subprocess.Popen[bytes]":
        if self.process is None:
            raise ServerError("vllama serve was not started")
        return self.process
