"""Real engines for tests: started through Processes, asked over HTTP, measured in /proc."""

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.host.proc_helpers import soon
from vllama.host import proctree
from vllama.host.processes import Order, Processes, Started

KV_BYTES = 2**27
WORKER = "vllama.host.cpu_worker.SleepingCPUWorker"


def snapshot(hub: Path, model: str) -> str:
    """The one snapshot of a model in an HF hub folder."""
    (found,) = (hub / f"models--{model.replace('/', '--')}" / "snapshots").iterdir()
    return str(found)


def free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def engine_argv(path: str, port: int, *more: str) -> tuple[str, ...]:
    """What vllama gives a CPU engine."""
    return (
        *("--model", path, "--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port)),
        *("--enforce-eager", "--max-model-len", "-1", "--kv-cache-memory-bytes", str(KV_BYTES)),
        *("--worker-cls", WORKER, *more),
    )


class Engine:
    """One engine that answers."""

    def __init__(self, processes: Processes, launch_id: str, port: int, started: Started, log: Path) -> None:
        self.processes, self.launch_id, self.port, self.started, self.log = (
            processes,
            launch_id,
            port,
            started,
            log,
        )

    def call_now(self, method: str, path: str, body: Any = None, timeout_s: float = 120) -> Any:
        """The answer's JSON (or text). Raises urllib's HTTPError."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.startswith(("{", "[")) else text

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        return await asyncio.to_thread(self.call_now, method, path, body)

    async def chat(self, text: str, tokens: int = 12) -> Any:
        """The choice with its log-probabilities, greedy."""
        messages = [{"role": "user", "content": text}]
        body = {"model": "m", "messages": messages, "temperature": 0, "max_tokens": tokens, "logprobs": True}
        return (await self.call("POST", "/v1/chat/completions", body))["choices"]

    async def wake_from_2(self) -> None:
        await self.call("POST", "/wake_up?tags=weights")
        await self.call("POST", "/collective_rpc", {"method": "reload_weights"})
        await self.call("POST", "/wake_up?tags=kv_cache")

    async def private_bytes(self) -> int:
        """What the whole tree holds alone."""
        return sum(private_bytes(pid) for pid in await self.processes.tree(self.launch_id))


def private_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private"))


async def begin(
    processes: Processes, folder: Path, path: str, *more: str, launch_id: str = "e", **changes: Any
) -> Engine:
    """A real engine that is on its way up."""
    port, log = free_port(), folder / f"{launch_id}.log"
    order = Order(**({"launch_id": launch_id, "argv": engine_argv(path, port, *more), "log": log} | changes))
    return Engine(processes, launch_id, port, await processes.launch(order), log)


async def up(engine: Engine) -> Engine:
    """It answers /health."""

    def answers() -> bool:
        alive = proctree.look(engine.started.pid)
        assert alive is not None, f"the engine died:\n{engine.log.read_text()[-3000:]}"
        try:
            engine.call_now("GET", "/health", timeout_s=1)
        except OSError:
            return False
        return True

    await soon(answers, within_s=300)
    return engine


async def start(processes: Processes, folder: Path, path: str, *more: str, **changes: Any) -> Engine:
    """A real engine that answers /health."""
    return await up(await begin(processes, folder, path, *more, **changes))
