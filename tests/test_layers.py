"""Who may import whom, read from the sources: architecture.md section 4 as a test."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import vllama

ROOT = Path(vllama.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LINES_MAX = 400
FUNCTION_LINES_MAX = 70

CORE_BANNED = {"asyncio", "time", "random", "logging", "os", "datetime", "threading", "socket", "subprocess"}
ENGINE_FILES = {"host/zygote.py", "host/bootstrap.py", "host/cpu_worker.py"}
FULL = {
    "cli/address.py",
    "cli/folders.py",
    "cli/local_cache.py",
    "cli/serve.py",
    "cli/assign.py",
    "cli/doctor/settings.py",
    "cli/doctor/network.py",
}
LOCAL = {
    "cli/local_cache.py",
    "cli/doctor/machine.py",
    "cli/doctor/settings.py",
    "cli/doctor/network.py",
}  # see this machine as the host does
COMPOSES = {  # what puts the program together
    ("api/server.py", "vllama.host.local.LocalHost"),
    ("api/server.py", "vllama.host.limits.allow_open_files"),
    ("api/workers.py", "vllama.host.workers.WorkerProcess"),
    ("api/worker.py", "vllama.host.workers.become_worker"),
}
OFFLINE = {"cli/replay.py"}  # folds a file with no server at hand
RICH = {"cli/render.py", "cli/markdown.py", "cli/bars.py"}
STDLIB_ONLY = {"host/guard.py", "host/keeper.py", "host/zygote.py"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else ""


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, wherever it stands, and whether that is at the top. `from a import b` counts as a.b:
    b may be a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative imports hide where one goes"
            assert node.module
            yield from ((f"{node.module}.{alias.name}", id(node) in top) for alias in node.names)


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def offences(path: Path) -> Iterator[str]:
    import sys

    name, room = name_of(path), room_of(path)
    core = name.startswith("actors/core/")
    for module, top in imports(path):
        ours = within(module, "vllama")
        base = module.partition(".")[0]
        if core and not (within(module, "vllama.actors.core") or base in sys.stdlib_module_names):
            yield f"{module}: the core imports the standard library and itself"
        if core and base in CORE_BANNED:
            yield f"{module}: the core has no loop, clock, chance, log or system"
        if base == "rich" and name not in RICH:
            yield f"{module}: only cli/render.py, markdown.py and bars.py talk to rich"
        if base == "textual" and not name.startswith("cli/top/"):
            yield f"{module}: only cli/top talks to Textual"
        if base in ("vllm", "torch") and name not in ENGINE_FILES:
            yield f"{module}: vLLM lives in the engine's own process"
        if name in STDLIB_ONLY and top and not ours and base not in sys.stdlib_module_names:
            yield f"{module}: this process must start at once, on the standard library"
        if base in ("fastapi", "starlette", "uvicorn") and room != "api":
            yield f"{module}: only api speaks HTTP as a server"
        if ours:
            yield from _between(module, top, name, room)


def _between(module: str, top: bool, name: str, room: str) -> Iterator[str]:
    """What one room may take from another."""
    upward = {
        "": ("vllama.actors", "vllama.host", "vllama.api", "vllama.cli"),
        "host": ("vllama.actors", "vllama.api", "vllama.cli"),
        "actors": ("vllama.api", "vllama.cli"),
        "api": ("vllama.cli", "vllama.host"),
        "cli": ("vllama.actors", "vllama.host"),
    }
    composes = (name, module) in COMPOSES
    offline = name in OFFLINE and within(module, "vllama.actors") and module.count(".") == 2 and not top
    local = name in LOCAL and within(module, "vllama.host") and not top
    if within(module, *upward[room]) and not composes and not offline and not local:
        yield f"{module}: not from {room or 'a leaf'}"
    if room == "api" and within(module, "vllama.actors") and module.count(".") > 2:
        yield f"{module}: api imports what vllama.actors exports"
    heavy = ("vllama.api", "vllama.config", "vllama.models_file", "vllama.names", "vllama.yamlfile")
    if room == "cli" and within(module, *heavy) and (name not in FULL or top):
        yield f"{module}: only `serve`, `assign` and `doctor` import so much, and only when they are called"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    assert list(offences(path)) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < LINES_MAX
    long = [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 >= FUNCTION_LINES_MAX
    ]
    assert long == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("actors/core/x.py", "import asyncio"),
        ("actors/core/x.py", "from vllama.actors.journal import Journal"),
        ("actors/core/x.py", "from time import monotonic"),
        ("actors/core/x.py", "import httpx"),
        ("actors/x.py", "def f():\n    import vllama.api.app"),
        ("host/x.py", "from vllama.actors import System"),
        ("host/x.py", "from vllama import actors"),
        ("host/x.py", "import torch.cuda"),
        ("host/guard.py", "import psutil"),
        ("api/x.py", "from vllama.actors.core import messages"),
        ("api/x.py", "from vllama.host.local import LocalHost"),
        ("api/x.py", "import rich.table"),
        ("cli/x.py", "def f():\n    from vllama.api.server import serve"),
        ("cli/serve.py", "from vllama.api.server import serve"),
        ("cli/replay.py", "from vllama.actors import SavedJournal"),
        ("cli/replay.py", "def f():\n    from vllama.actors.journal import load"),
        ("cli/control.py", "def f():\n    from vllama.actors import SavedJournal"),
        ("cli/x.py", "import fastapi"),
        ("cli/x.py", "def f():\n    from textual.app import App"),
        ("cli/doctor/machine.py", "from vllama.host.nvml import Driver"),
        ("cli/control.py", "def f():\n    from vllama.host.hub import Hub"),
        ("cli/chat/x.py", "from rich.live import Live"),
        ("config.py", "from vllama.host import host"),
    ],
)
def test_an_offence_is_seen(name: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert list(offences(path))
