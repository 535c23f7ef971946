"""`.venv` holds vllama, the vLLM that fits this machine, and the tools. Run by any python3; stdlib only.

A stamp, written last, makes a second run do nothing. Without it the install did not finish, and `.venv` is
made anew. It must parse and run on a python3 that is too old (3.8), to say so.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "vllama-setup.json"
STATE = ROOT / ".demo"
LOG = STATE / "setup.log"
PYTHONS = ("python3", "python3.13", "python3.12", "python3.11")
PYTHON_MIN = (3, 11)
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# They come along from the default index, built for another torch; transformers dies when they fail to import.
OPTIONAL = ("torchvision", "torchaudio", "torchcodec")
# Of pip's output, what the terminal shows: the large downloads (10 MB and more) and the milestones.
SHOWN = re.compile(r"\s*(Downloading .*\(([0-9]{2,}\.[0-9] MB|.* GB)\)|Installing collected packages|ERROR)")


class SetupError(Exception):
    """Set-up cannot go on; the message says why and what to do."""


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


@contextlib.contextmanager
def locked() -> Iterator[int]:
    """One set-up at a time: the second waits, then finds the stamp. The lock dies with its holder."""
    STATE.mkdir(exist_ok=True)
    with open(STATE / "setup.lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another set-up is running in this folder; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def gpu_count() -> int:
    """How many NVIDIA GPUs the driver reports; 0 without a driver."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        count = ctypes.c_uint(0)
        if nvml.nvmlInit_v2() != 0:
            return 0
        try:
            return count.value if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0 else 0
        finally:
            nvml.nvmlShutdown()
    except (OSError, AttributeError):
        return 0


def venv_version() -> str:
    """The Python version that `.venv` was made with; "" when it has no working interpreter."""
    try:
        text = (VENV / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r"^version\s*=\s*(\S+)", text, re.MULTILINE)
    return found.group(1) if found and os.access(str(PYTHON), os.X_OK) else ""


def wanted(extra: str) -> dict[str, str]:
    """What the stamp of a finished install says. The root is in it: a venv's scripts hold absolute paths.

    Of pyproject.toml only what pip reads counts: a change of the linters' settings installs nothing.
    """
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    digest = hashlib.sha256(text.split("\n[tool.")[0].encode()).hexdigest()
    return {"pyproject": digest, "python": venv_version(), "extra": extra, "root": str(ROOT)}


def stamped() -> dict[str, str] | None:
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


def choose_python() -> str:
    """The first interpreter that is new enough and can make a venv with pip in it."""
    probe = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    seen = []
    for name in PYTHONS:
        path = shutil.which(name)
        if path is None:
            continue
        done = subprocess.run([path, "-c", probe], capture_output=True, text=True, check=False)
        version = done.stdout.strip()
        if done.returncode == 0 and tuple(map(int, version.split("."))) >= PYTHON_MIN:
            return path
        last = (done.stderr.strip().splitlines() or ["it does not run"])[-1]
        seen.append(f"  {path}: " + (f"is Python {version}" if done.returncode == 0 else last))
    found = "\n".join(seen) or "  none of them is on PATH"
    raise SetupError(
        f"no usable Python: need {PYTHON_MIN[0]}.{PYTHON_MIN[1]} or newer with venv and ensurepip, tried "
        f"{', '.join(PYTHONS)}:\n{found}\nOn Debian and Ubuntu: apt-get install python3 python3-venv"
    )


def make_venv() -> None:
    """A fresh, empty `.venv`. An unfinished one may hold half a package: it is not mended, it goes."""
    if VENV.exists():
        if any(VENV.iterdir()) and not (VENV / "pyvenv.cfg").exists():
            raise SetupError(f"{VENV} exists and is not a virtual environment: move it away and run again")
        say(".venv is not a finished install of this folder: making it anew")
        shutil.rmtree(VENV)
    python = choose_python()
    say(f"making .venv with {python}")
    subprocess.run([python, "-m", "venv", str(VENV)], check=True)


def pip(lock: int, *arguments: str) -> tuple[int, str]:
    """Runs pip in `.venv`; the milestones go to the terminal, all of it to the log. Gives status and tail."""
    tail: deque[str] = deque(maxlen=40)
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    with open(LOG, "a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n")
        with subprocess.Popen(
            command,
            cwd=str(ROOT),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=(lock,),  # were we killed, pip would go on writing: the lock is held until it ends too
        ) as process:
            for line in process.stdout or ():
                log.write(line)
                tail.append(line)
                if SHOWN.match(line):
                    say("  " + line.strip()[:100])
    return process.returncode, "".join(tail)


def install(lock: int, extra: str) -> None:
    """vllama with its extras. An index out of reach costs minutes, so PyTorch's is added only when needed."""
    arguments = ["install", "--progress-bar", "off", "-e", f".[{extra},dev]"]
    say(f"installing vllama[{extra},dev] (minutes, gigabytes; the whole output is in {LOG})")
    status, tail = pip(lock, *arguments)
    if status and re.search(r"torch==\S+\+cpu", tail):
        say(f"pip's own indexes have no CPU build of torch; adding {TORCH_CPU_INDEX}")
        status, tail = pip(lock, *arguments, "--extra-index-url", TORCH_CPU_INDEX)
    if status:
        raise SetupError(f"pip failed with status {status}:\n{tail}\nThe whole output is in {LOG}")


def drop_broken(lock: int) -> None:
    for name in OPTIONAL:
        found = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
        if subprocess.run([str(PYTHON), "-c", found, name], check=False).returncode:
            continue
        done = subprocess.run([str(PYTHON), "-c", f"import {name}"], capture_output=True, check=False)
        if done.returncode:
            say(f"removing {name}: it does not import with this torch, and vLLM runs without it")
            status, tail = pip(lock, "uninstall", "-y", name)
            if status:
                raise SetupError(f"could not remove {name}:\n{tail}")


def set_up(lock: int) -> None:
    extra = "vllm" if gpu_count() else "cpu"
    stamp = stamped()
    if stamp is not None and stamp == wanted(extra):
        return
    began = time.monotonic()
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        say("warning: no C compiler found; vLLM may need one (apt-get install gcc)")
    kept = stamp is not None and {**stamp, "pyproject": ""} == {**wanted(extra), "pyproject": ""}
    if kept:
        say("pyproject.toml has changed: bringing .venv up to date")
        STAMP.unlink()
    else:
        make_venv()
    LOG.write_text("", encoding="utf-8")
    install(lock, extra)
    drop_broken(lock)
    new = STAMP.with_suffix(".new")
    new.write_text(json.dumps(wanted(extra), indent=1), encoding="utf-8")
    os.replace(str(new), str(STAMP))
    say(f".venv is ready: vllama[{extra},dev], Python {venv_version()}, {time.monotonic() - began:.0f} s")


def main() -> int:
    try:
        with locked() as lock:
            set_up(lock)
    except SetupError as error:
        print(f"setup: error: {error}", file=sys.stderr)
        return 1
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"setup: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; the next run starts the install again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
