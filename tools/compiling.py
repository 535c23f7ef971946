"""Compiles the modules that setup.py names, beside their sources, if they are not of these sources already.

Run by `.venv`'s Python at the end of set-up. Without a C compiler it says so and leaves the sources to run.
"""

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vllama"
LOG = ROOT / ".demo" / "compile.log"
sys.path.insert(0, str(ROOT))

from vllama import sources  # noqa: E402

STAMP = PACKAGE / sources.STAMP
FAILED = "none: the compiler failed on these sources"


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def compiled_names() -> list[str]:
    """The sources, by their paths in the package, as setup.py names them."""
    import ast

    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMPILED":
            return [name.removeprefix("vllama/") for name in ast.literal_eval(node.value)]
    raise SystemExit("setup.py names no COMPILED")


def twins() -> list[Path]:
    """Every compiled module that stands in the package."""
    return sorted(PACKAGE.rglob("*.so"))


def up_to_date(names: list[str]) -> bool:
    """These sources were compiled already, or the compiler has failed on them before."""
    lines = STAMP.read_text(encoding="utf-8").splitlines() if STAMP.exists() else []
    wanted = sources.marks(str(PACKAGE), names)
    return lines == [*wanted, FAILED] or (lines == wanted and len(twins()) > len(names))


def compiler() -> str | None:
    """The C compiler that Python's own extensions are built with."""
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    return shutil.which(command[0])


def compile_all(names: list[str]) -> bool:
    """Whether all are there now. The stamp is written last: what was interrupted is never loaded."""
    STAMP.write_text("under way\n", encoding="utf-8")
    for path in twins():
        path.unlink()
    before = sources.marks(str(PACKAGE), names)
    with LOG.open("w", encoding="utf-8") as log:
        command = [sys.executable, "setup.py", "build_ext", "--inplace"]
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
        )
    whole = done.returncode == 0 and len(twins()) > len(names)
    if not whole:
        for path in twins():
            path.unlink()
    STAMP.write_text("\n".join(before if whole else [*before, FAILED]) + "\n", encoding="utf-8")
    return whole


def main() -> None:
    names = compiled_names()
    LOG.parent.mkdir(exist_ok=True)
    with LOG.with_suffix(".lock").open("w") as lock:  # who comes second finds it done
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not up_to_date(names):
            bring_up_to_date(names)


def bring_up_to_date(names: list[str]) -> None:
    if compiler() is None:
        say(
            "no C compiler: vllama runs from its sources, and passes a request on at one and a half times the cost"
        )
        return
    say(f"compiling {len(names)} modules, two minutes or so; the log is {LOG.relative_to(ROOT)}")
    began = time.monotonic()
    if compile_all(names):
        say(f"  they are compiled, {time.monotonic() - began:.0f} s")
    else:
        say(f"  they could not be compiled ({LOG.relative_to(ROOT)} says why): vllama runs from its sources")


if __name__ == "__main__":
    main()
