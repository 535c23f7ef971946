"""vllama's wheel, built from the tracked files alone, and pip as a user runs it: away from the source, with no VLLAMA_* about."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")
PARTS = ("vllama", "setup.py", "pyproject.toml", "README.md", "LICENSE")
BUILD_S = 900.0


def tracked(*parts: str) -> list[str]:
    """The files of these parts that git knows; all of them where there is no git."""
    done = subprocess.run(
        ["git", "ls-files", "--", *parts], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode == 0 and done.stdout:
        return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]
    found = [
        path
        for part in parts
        for path in ((ROOT / part).rglob("*") if (ROOT / part).is_dir() else [ROOT / part])
    ]
    return [
        path.relative_to(ROOT).as_posix()
        for path in found
        if path.is_file() and "__pycache__" not in path.parts
    ]


def build(folder: Path, *, pure: bool = False) -> Path:
    """The wheel; `pure`: nothing in it is compiled, which takes two minutes."""
    source = folder / "source"
    for name in tracked(*PARTS):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder / "dist"),
        str(source),
        cwd=folder,
        timeout_s=BUILD_S,
        env=os.environ | ({"VLLAMA_PURE": "1"} if pure else {}),
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def environ(home: Path) -> dict[str, str]:
    """What a user's shell has, with a home of its own but pip's cache where it is."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("VLLAMA_", "PYTHON", "HF_"))}
    env.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return env | {
        "HOME": str(home),
        "VLLAMA_CONFIG_DIR": str(home / "config"),
        "VLLAMA_TRANSFORMERS_CACHE": str(home / "hub"),
    }


def run(*command: str, cwd: Path, timeout_s: float = 300, env: dict[str, str] | None = None) -> str:
    """Its output; what it said is in the failure."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, (
        f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    )
    return done.stdout
