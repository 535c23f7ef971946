"""What stands before the backend: nothing, nginx, vllama, the usual recipe, LiteLLM. Each a running process with a port."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import httpx
from common import ROOT
from data_path.cpu import pin
from data_path.installs import litellm_command, nginx_command
from serving import Vllama, descendants, free_port, wait_until

from tests.api.caches import CHAT, make_cache

HERE = Path(__file__).resolve().parent
BACKEND = HERE / "backend.py"
START_TIMEOUT_S = 120
WAKE_TIMEOUT_S = 300
STARTED_AT_ONCE = 16
WAKE_PASSES_MAX = 20
CORES = sorted(os.sched_getaffinity(0))
# The subject has a core for itself; load and backend share the other one.
PROXY_CORES = {CORES[0]}
LOAD_CORES = {CORES[-1]}


@dataclass
class Subject:
    """Something to ask. `pids` are those whose CPU and memory are its own."""

    name: str
    port: int
    pids: list[int]
    models: list[str]
    parts: dict[str, list[int]] = field(default_factory=dict)  # some of them, by what they do


@contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """What is started here runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def process(
    command: list[str], cores: set[int], log: TextIO, **env: str
) -> Iterator[subprocess.Popen[bytes]]:
    with on(cores):
        running = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **env}
        )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


class Stand:
    """The backend, and the subjects as they are asked for; all of it ends with the stand."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._folder = ROOT / ".demo" / "bench-proxy"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._shared = self._folder / f"backend-{os.getpid()}"
        stack.callback(self._shared.unlink, missing_ok=True)
        self._backend: Subject | None = None

    def start(self, name: str) -> Subject:
        """The subject, answering."""
        return self._starters()[name](self._stack)

    @contextmanager
    def fresh(self, name: str) -> Iterator[Subject]:
        """One of its own, that ends here."""
        with ExitStack() as stack:
            yield self._starters()[name](stack)

    def _starters(self) -> Mapping[str, Callable[[ExitStack], Subject]]:
        return {
            "direct": lambda _: self.backend,
            "nginx": self._nginx,
            "vllama": self._vllama,
            "recipe": self._recipe,
            "litellm": self._litellm,
        }

    @property
    def backend(self) -> Subject:
        if self._backend is None:
            port = free_port()
            self._shared.unlink(missing_ok=True)
            command = [sys.executable, str(BACKEND), "--port", str(port), "--shared", str(self._shared)]
            self._backend = self._run(self._stack, "direct", command, port, LOAD_CORES)
        return self._backend

    def vllama(self, stack: ExitStack, known: int, awake: int, *args: str) -> Subject:
        """A server that knows so many models, so many of them awake."""
        backend = self.backend  # there before an engine gives it a port
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vllama-bench-")))
        models = [CHAT, *(f"tiny/chat-{number}" for number in range(1, known))]
        cache = make_cache(folder / "hub", dict.fromkeys(models, "Qwen3ForCausalLM"))
        env = {
            "BENCH_SHARED": str(self._shared),
            "VLLAMA_ENGINE_ENTRY": str(BACKEND),
            "VLLAMA_ENGINE_START": "exec",
            "VLLAMA_KV_DEFAULT_MAX": "1MiB",
            "VLLAMA_MEMORY_LIMIT": "100TiB",  # the backends take next to nothing
        }
        server = Vllama(folder / "server", cache, env=env, args=args)
        stack.callback(server.kill)
        server.start(START_TIMEOUT_S)
        wake(server, models[:awake])
        tree = {server.pid, *(proc.pid for proc in descendants(server.pid))}
        engines = {pid for pid in tree if is_backend(pid)}
        for pid in tree:
            pin(pid, LOAD_CORES if pid in engines else PROXY_CORES)
        parts = {"system": [server.pid], "backend": backend.pids}
        for worker in server.get("/control/info")["workers"]:
            parts.setdefault("workers", []).append(worker["pid"])
        return Subject("vllama", server.port, sorted(tree - engines), models[:awake], parts)

    def _vllama(self, stack: ExitStack) -> Subject:
        return self.vllama(stack, 1, 1)

    def _nginx(self, stack: ExitStack) -> Subject:
        return self.nginx(stack, 1)

    def nginx(self, stack: ExitStack, workers: int) -> Subject:
        """nginx with so many worker processes."""
        port = free_port()
        folder = self._folder / f"nginx-{workers}"
        folder.mkdir(exist_ok=True)
        text = (HERE / "nginx.conf").read_text(encoding="utf-8")
        for key, value in {
            "workers": str(workers),
            "pid": str(folder / "pid"),
            "folder": str(folder),
            "port": str(port),
            "backend": str(self.backend.port),
        }.items():
            text = text.replace(f"@{key}@", value)
        (folder / "nginx.conf").write_text(text, encoding="utf-8")
        command = [nginx_command(), "-p", str(folder), "-e", str(folder / "error.log")]
        return self._run(stack, "nginx", [*command, "-c", str(folder / "nginx.conf")], port, PROXY_CORES)

    def _recipe(self, stack: ExitStack) -> Subject:
        port = free_port()
        command = [
            sys.executable,
            str(HERE / "recipe.py"),
            str(port),
            f"http://127.0.0.1:{self.backend.port}",
        ]
        return self._run(stack, "recipe", command, port, PROXY_CORES)

    def _litellm(self, stack: ExitStack) -> Subject:
        port = free_port()
        config = self._folder / "litellm.yaml"
        config.write_text(
            f"""model_list:
  - model_name: {CHAT}
    litellm_params: {{model: openai/{CHAT}, api_base: "http://127.0.0.1:{self.backend.port}/v1", api_key: none}}
""",
            encoding="utf-8",
        )
        command = [litellm_command(), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        env = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_TELEMETRY": "False",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # nobody else is here
        }
        return self._run(stack, "litellm", [*command, "--num_workers", "1"], port, PROXY_CORES, **env)

    def _run(
        self, stack: ExitStack, name: str, command: list[str], port: int, cores: set[int], **env: str
    ) -> Subject:
        """The process, once a chat through it is answered."""
        path = self._folder / f"{name}.log"
        log = stack.enter_context(path.open("w", encoding="utf-8"))
        running = stack.enter_context(process(command, cores, log, **env))

        def answers() -> bool:
            if running.poll() is not None:
                raise SystemExit(f"{name} ended with {running.returncode}; its log is {path}")
            try:
                ask_once(port, CHAT, 10)
            except httpx.TransportError:
                return False
            return True

        if not wait_until(answers, START_TIMEOUT_S):
            raise SystemExit(f"{name} did not answer in {START_TIMEOUT_S} s; its log is {path}")
        tree = [running.pid, *(proc.pid for proc in descendants(running.pid))]
        return Subject(name, port, tree, [CHAT])


def wake(server: Vllama, models: list[str]) -> None:
    """All of these are awake. Until an engine is measured it is booked with what an engine takes, and the first ones may have
    to sleep for the last ones: they are woken again."""
    missing = models
    for _ in range(WAKE_PASSES_MAX):
        with ThreadPoolExecutor(STARTED_AT_ONCE) as pool:
            list(pool.map(lambda model: ask_once(server.port, model, WAKE_TIMEOUT_S), missing))
        rows = server.get("/control/ps")["instances"]
        missing = sorted({*models} - {row["model"] for row in rows if row["phase"] == "awake"})
        if not missing:
            return
    raise SystemExit(f"vllama does not keep {len(models)} models awake: {len(missing)} sleep")


def ask_once(port: int, model: str, timeout_s: float) -> None:
    """One chat that must be answered with 200."""
    body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}]}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    answer = httpx.post(url, json=body, timeout=timeout_s, trust_env=False)
    if answer.status_code != 200:
        raise SystemExit(f"{url} answered {answer.status_code} for {model}: {answer.text[:500]}")


def is_backend(pid: int) -> bool:
    return str(BACKEND).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
