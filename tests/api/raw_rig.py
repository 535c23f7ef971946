"""A server whose engine does with a connection what each request says (tests/fakes/raw_engine.py), asked over plain sockets."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving import Vllama, pss_bytes

from tests.api.caches import CHAT
from tests.api.front_rig import FAST, request
from tests.api.rig import BOUND_S, Rig
from tests.api.worker_rig import ENV, WorkerRig
from tests.conftest import ROOT

ENGINE = {
    "VLLAMA_ENGINE_ENTRY": str(ROOT / "tests" / "fakes" / "raw_engine.py"),
    "VLLAMA_ENGINE_START": "exec",
}
WORKERS = (1, 2)


class RawRig:
    """One `vllama serve` with its model awake, and a line to the engine behind it."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.port = rig.server.port
        if isinstance(rig, WorkerRig):
            rig.warm(CHAT)
        else:
            rig.chat(CHAT).raise_for_status()

    def pids(self) -> list[int]:
        """The processes that serve: the server's own and its workers."""
        workers = self._rig.helpers() if isinstance(self._rig, WorkerRig) else set()
        return [self._rig.server.pid, *sorted(workers)]

    def memory_bytes(self) -> int:
        return sum(map(pss_bytes, self.pids()))

    def dial(self, receive_bytes: int = 0) -> socket.socket:
        """A connection; `receive_bytes`: how little lies in the client's kernel."""
        sock = socket.socket()
        sock.settimeout(BOUND_S)
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.connect(("127.0.0.1", self.port))
        return sock

    def engine(self, path: str) -> Any:
        return self._rig.engine(CHAT, "GET", path).json()

    def chat(self, way: tuple[str, ...] = ()) -> None:
        """A new client is served."""
        headers = dict(line.split(": ") for line in way)
        answer = self._rig.chat(CHAT, headers={**headers, "X-Request-Id": "other"})
        assert answer.json()["id"] == "other"

    def health(self) -> int:
        return self._rig.http.get("/health").status_code

    def until_idle(self) -> None:
        self._rig.until(CHAT, in_flight=0)


def raw_request(
    number: str, way: tuple[str, ...] = (), say: bytes | tuple[bytes, ...] = (), then: str = "", **more: Any
) -> bytes:
    """A request with this id that has the engine say these parts."""
    parts = (say,) if isinstance(say, bytes) else say
    body = {"model": CHAT, "say": [part.decode("latin-1") for part in parts], "then": then, **more}
    return request(FAST, body, f"X-Request-Id: {number}", *way)


@contextmanager
def serving_raw(
    folder: Path, cache: Path, workers: int, env: Mapping[str, str] | None = None
) -> Iterator[RawRig]:
    """It must exit 0 and leave no process behind."""
    more = ENV | {"VLLAMA_WORKERS": str(workers)} if workers > 1 else {}
    server = Vllama(folder, cache, env=ENGINE | more | dict(env or {}))
    try:
        server.start()
        rig = (WorkerRig if workers > 1 else Rig)(server, None)
        try:
            yield RawRig(rig)
        finally:
            rig.close()
        server.end()
    finally:
        server.kill()
