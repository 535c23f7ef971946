"""A server with worker processes, as tests use it: every request on a connection of its own, so that no two share a fate."""

import os
import signal
from collections.abc import Callable
from typing import Any

import httpx
from serving import Vllama, descendants, stat_of, wait_until

from tests.api.rig import BOUND_S, Rig

COUNT = 2
READY_S = 90.0
ENV = {"VLLAMA_WORKERS": str(COUNT), "VLLAMA_BACKOFF_S": "0.05", "VLLAMA_BACKOFF_MAX_S": "0.2"}


class WorkerRig(Rig):
    """A Rig whose client never sends two requests on one connection: control would take the next one along to the system."""

    def __init__(self, server: Vllama, faults: Any) -> None:
        super().__init__(server, faults)
        self.http.close()
        self.http = fresh_client(server)
        try:
            self.until_ready()
        except BaseException:
            self.close()
            raise

    def until_ready(self, times: int = COUNT) -> None:
        """Returns when workers have said so often that they accept connections, and as many are there as should be."""
        assert wait_until(lambda: self.noted("worker_ready") >= times, READY_S), self.server.log_tail()

    def noted(self, what: str) -> int:
        return sum(e["kind"] == "HostNoted" and e["what"] == what for e in self.server.events())

    def workers(self) -> list[dict[str, Any]]:
        return self.http.get("/control/info").raise_for_status().json()["workers"]

    def serving(self) -> int:
        """The pid of a worker that serves a request now."""
        found: list[int] = []

        def there() -> bool:
            found[:] = [worker["pid"] for worker in self.workers() if worker["in_flight"]]
            return bool(found)

        assert wait_until(there, BOUND_S), f"no worker serves: {self.workers()}"
        return found[0]

    def lent(self, model: str) -> int:
        """How many batches are out."""
        kinds = self.kinds(model)
        return kinds.count("BatchLent") - kinds.count("BatchReturned")

    def warm(self, model: str) -> None:
        """Awake, and every worker may admit by itself."""
        assert wait_until(lambda: self.chat(model).status_code == 200 and self.lent(model) >= COUNT, BOUND_S)

    def helpers(self) -> set[int]:
        """The worker processes, as /proc shows them."""
        found = {proc.pid for proc in descendants(self.server.pid)}
        return {pid for pid in found if (stat := stat_of(pid)) is not None and stat.name == "vllama-worker"}


def fresh_client(server: Vllama) -> httpx.Client:
    return httpx.Client(
        base_url=server.url,
        trust_env=False,
        timeout=BOUND_S,
        limits=httpx.Limits(max_keepalive_connections=0),
    )


def make_worker_rigs(make_rig: Callable[..., Rig]) -> Callable[..., WorkerRig]:
    """The same factory, for servers with workers."""

    def make(*faults: str, env: dict[str, str] | None = None, **more: Any) -> WorkerRig:
        return make_rig(*faults, env=ENV | (env or {}), kind=WorkerRig, **more)

    return make


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)
