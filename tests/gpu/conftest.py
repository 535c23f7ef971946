"""The same acceptance on two machines: this one's NVIDIA GPUs with the real vLLM (marked `gpu`, skipped where there are
none), and fake GPUs with fake engines, so that its own logic is tested everywhere. The report: bench/out/gpu.json.
"""

import importlib.metadata
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Vllama

from tests.fakes.fake_gpu import GIB, FakeGpus
from tests.gpu.machine import CHAT, EMBED, Machine, fake_models, gpus_of

ROOT = Path(__file__).resolve().parent.parent.parent
REPORT = ROOT / "bench" / "out" / "gpu.json"
TIMEOUT_S = 1800
ROWS: list[dict[str, Any]] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/gpu/") and "[real" in item.name:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.engine)
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


def why_no_gpu() -> str:
    """Why the real part cannot run here, "" when it can."""
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return "needs vLLM's CUDA build: `make test-gpu PYTHON=...` with one that has vllama[vllm,dev]"
    found = gpus_of({})
    return "" if found else "needs an NVIDIA GPU that its driver shows"


@pytest.fixture(params=["real", "fake"])
def machine(
    request: pytest.FixtureRequest, vllama_server: Callable[..., Vllama], tmp_path: Path
) -> Iterator[Machine]:
    if request.param == "real":
        if why := why_no_gpu():
            pytest.skip(why)
        cache = request.getfixturevalue("demo_cache")
        made = Machine(vllama_server, cache, {}, tmp_path, fake=False)
    else:
        gpus = FakeGpus(tmp_path / "gpus")
        gpus.add(16 * GIB)
        gpus.add(16 * GIB)
        cache = fake_models(tmp_path / "hub", {CHAT: 270 * 2**20, EMBED: 90 * 2**20})
        env = gpus.env(request.getfixturevalue("gpu_driver"))
        made = Machine(vllama_server, cache, env, tmp_path, fake=True)
    yield made
    made.close()


@pytest.fixture
def row(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Callable[..., None]]:
    """Figures of this test, for the report."""
    figures: dict[str, Any] = {}
    begun = time.monotonic()
    yield figures.update
    passed = not getattr(request.node, "failed", False)
    took_s = round(time.monotonic() - begun, 2)
    about = {
        "test": request.node.originalname,
        "machine": "fake" if machine.fake else "real",
        "gpus": machine.names,
    }
    ROWS.append(about | {"passed": passed, "took_s": took_s} | figures)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    if outcome.get_result().when == "call":
        item.failed = outcome.get_result().failed  # type: ignore[attr-defined]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not ROWS:
        return
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(ROWS, indent=1) + "\n", encoding="utf-8")
    terminalreporter.section("GPU acceptance")
    for row in ROWS:
        figures = {
            key: value for key, value in row.items() if key not in ("test", "machine", "passed", "gpus")
        }
        said = "  ".join(f"{key} {value}" for key, value in figures.items())
        terminalreporter.line(f"{'ok  ' if row['passed'] else 'FAIL'} {row['machine']} {row['test']}: {said}")
    terminalreporter.line(f"written to {REPORT.relative_to(ROOT)}")
