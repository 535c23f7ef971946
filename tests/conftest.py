"""What every test may use: model caches, real servers, and the proof that a run leaves no process behind."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serving
from serving import ServerError, Vllama

from tests.fakes.fake_gpu import compile_driver

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"
FAKE_ENGINE = ROOT / "tests" / "fakes" / "fake_vllm.py"
BUILD_TIMEOUT_S = 600

# A run in the background of a shell begins with SIGINT ignored, and so would every process of the tests.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--histories", type=int, default=200, help="how many histories the simulation runs")


# A test that has one of these starts a server of its own, or has a command start one.
SERVERS = {"shared_server", "vllama_server", "rig", "make_rig", "raw_server", "server", "nobody", "alone"}
PROCESSES = {"acceptance", "gpu", "tools", "ui"}
# Files whose tests start trees of processes, or fake engines, which are servers too.
STARTING = ("test_processes", "test_local", "test_fake_contract")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts servers and trees of processes is `slow`: `make test-fast` leaves it out, `make test` does not."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        _, folder, *_ = item.nodeid.split("/")
        if fixtures & SERVERS or folder in PROCESSES or item.path.name.startswith(STARTING):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def histories(request: pytest.FixtureRequest) -> int:
    """How many histories the simulation runs in this session."""
    return int(request.config.getoption("--histories"))


def _build(script: str, hub: Path) -> Path:
    """Runs one of the model tools in a process of its own: torch stays out of the tests' process."""
    done = subprocess.run(
        [sys.executable, str(TOOLS / script), str(hub)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"tools/{script} failed:\n{done.stdout[-4000:]}"
    return hub


@pytest.fixture(scope="session")
def demo_cache() -> Path:
    """The HF hub folder with the two real models: SmolLM2-135M-Instruct and all-MiniLM-L6-v2."""
    return _build("models.py", ROOT / ".demo" / "hf" / "hub")


@pytest.fixture(scope="session")
def tiny_cache() -> Path:
    """An HF hub folder with tiny/qwen3 (chat), tiny/bge-m3 (embedding) and tiny/qwen3-reranker, random weights.

    Kept between runs, under the name of the recipe: another recipe is another folder.
    """
    recipe = b"".join((TOOLS / name).read_bytes() for name in ("tiny.py", "hf_layout.py"))
    return _build("tiny.py", ROOT / ".demo" / f"tiny-{hashlib.sha256(recipe).hexdigest()[:8]}" / "hub")


@pytest.fixture(scope="session")
def gpu_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake NVIDIA driver's library, compiled."""
    return compile_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def vllama_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Vllama]]:
    """A factory of real `vllama serve` processes, each answering /health when it is handed out.

    `make(cache, memory_limit="1GiB", env={...}, args=(...), fake=True, own_group=False)`; `fake` runs
    tests/fakes/fake_vllm.py as the engine. At the end of the test each one that still runs is ended by SIGTERM: it must
    exit 0; and none of them, however it ended, may have left a process behind.
    """
    assert request.node.get_closest_marker("slow"), (
        "fixtures are named, not asked for: what starts a server is slow"
    )
    servers: list[Vllama] = []

    def make(
        cache: Path,
        *,
        memory_limit: str = "",
        env: dict[str, str] | None = None,
        args: tuple[str, ...] = (),
        fake: bool = False,
        own_group: bool = False,
    ) -> Vllama:
        env = dict(env or {})
        if fake:
            env = {"VLLAMA_ENGINE_ENTRY": str(FAKE_ENGINE), "VLLAMA_ENGINE_START": "exec"} | env
        server = Vllama(
            tmp_path / f"vllama-{len(servers)}",
            cache,
            env=env,
            memory_limit=memory_limit,
            args=args,
            own_group=own_group,
        )
        servers.append(server)
        return server.start()

    yield make
    problems = []
    for server in servers:
        try:
            if server.process is not None and server.process.poll() is None:
                server.end()
            elif left := server.wait_nothing_left(5):
                problems.append("left behind: " + "; ".join(left) + server.log_tail())
        except ServerError as error:
            problems.append(str(error))
        finally:
            server.kill()
    assert not problems, "\n".join(problems)


@pytest.fixture(scope="session", autouse=True)
def _no_process_left() -> Iterator[None]:
    """At the end of the session nothing that a test started lives, and no zombie waits for us."""
    yield
    left = []
    for proc in serving.descendants(os.getpid()):
        stat = serving.stat_of(proc.pid)
        if stat is not None and stat.proc == proc:
            left.append(f"{proc.pid} {stat.name} state {stat.state} parent {stat.parent}")
    assert not left, "the tests left processes behind: " + "; ".join(left)
