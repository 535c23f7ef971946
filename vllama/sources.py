"""Modules that are compiled (setup.py), and when their sources are loaded instead.

In a clone the compiled twins stand beside the sources, and Python would prefer them also when a source has changed since. STAMP,
which tools/compiling.py writes, says what they were made of: if that is not what stands there now, or with VLLAMA_PURE set, all
modules are loaded from their sources. An installed wheel has no such file and nothing to compare.

Every process of ours begins here: only what Python has loaded anyway is imported.
"""

import os
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader

PACKAGE = os.path.dirname(os.path.abspath(__file__))
STAMP = "compiled.txt"
LIBRARY = "compiled__mypyc."  # what the twins share


def marks(package: str, names: list[str]) -> list[str]:
    """A line for each source: its path in the package, size and time of its last change. Raises OSError."""
    found = []
    for name in names:
        stat = os.stat(os.path.join(package, name))
        found.append(f"{name} {stat.st_size} {stat.st_mtime_ns}")
    return found


def fresh(package: str = PACKAGE) -> bool:
    """Whether the compiled twins in this package, if there are any, are of the sources that stand there."""
    try:
        with open(os.path.join(package, STAMP), encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        return bool(lines) and marks(package, [line.split(" ")[0] for line in lines]) == lines
    except OSError:
        return False


def why_interpreted(package: str = PACKAGE) -> str:
    """Why modules are loaded from their sources; "" where the compiled twins are."""
    if os.environ.get("VLLAMA_PURE"):
        return "VLLAMA_PURE is set"
    if not any(name.startswith(LIBRARY) for name in os.listdir(package)):
        return "nothing was compiled"
    return "" if fresh(package) else "a source has changed since it was compiled"


class SourcesOnly:
    """A finder that knows no compiled module of ours."""

    @staticmethod
    def find_spec(name: str, path: list[str] | None = None, _target: object = None) -> ModuleSpec | None:
        """As importlib asks: the module's source, or None for the next finder."""
        if not name.startswith("vllama."):
            return None
        for folder in path or ():
            spec = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name)
            if spec is not None:
                return spec
        return None


def choose() -> None:
    """Once, before any other module of ours is loaded."""
    if os.environ.get("VLLAMA_PURE") or not fresh():
        sys.meta_path.insert(0, SourcesOnly)  # type: ignore[arg-type]
