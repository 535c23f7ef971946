"""Compiled twins are loaded while they are of the sources that stand there, and never else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import compiling
import pytest

from vllama import sources

NAMES = ["a.py", "b/c.py"]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    for name in NAMES:
        (tmp_path / name).write_text("X = 1\n")
    return tmp_path


def stamp(package: Path, *more: str) -> None:
    lines = [*sources.marks(str(package), NAMES), *more]
    (package / sources.STAMP).write_text("\n".join(lines) + "\n")


def test_an_installed_package_has_no_stamp_and_is_fresh(package: Path) -> None:
    assert sources.fresh(str(package))


def test_a_stamp_of_these_sources_is_fresh(package: Path) -> None:
    stamp(package)
    assert sources.fresh(str(package))


def test_a_source_that_has_changed_is_not(package: Path) -> None:
    stamp(package)
    os.utime(package / "b" / "c.py", ns=(1, 1))
    assert not sources.fresh(str(package))
    stamp(package)
    (package / "a.py").unlink()
    assert not sources.fresh(str(package))


@pytest.mark.parametrize("text", ["", "under way\n", "a.py\n", "\n"])
def test_what_was_interrupted_is_not(package: Path, text: str) -> None:
    (package / sources.STAMP).write_text(text)
    assert not sources.fresh(str(package))


def test_what_could_not_be_compiled_is_not(package: Path) -> None:
    stamp(package, compiling.FAILED)
    assert not sources.fresh(str(package))


def test_why_sources_run_is_said(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLAMA_PURE", raising=False)
    assert sources.why_interpreted(str(package)) == "nothing was compiled"
    (package / f"{sources.LIBRARY}so").write_bytes(b"")
    stamp(package)
    assert sources.why_interpreted(str(package)) == ""
    os.utime(package / "a.py", ns=(1, 1))
    assert "has changed" in sources.why_interpreted(str(package))
    monkeypatch.setenv("VLLAMA_PURE", "1")
    assert sources.why_interpreted(str(package)) == "VLLAMA_PURE is set"


def loaded(root: Path, **env: str) -> str:
    """What a process loads as the links to engines, and the bytes that it takes at once."""
    code = "import vllama.api.link as m; print(type(m.__loader__).__name__, m.RECEIVE_BYTES)"
    clean = {key: value for key, value in os.environ.items() if key != "VLLAMA_PURE"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=root, env=clean | env, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """This package with its compiled twins, elsewhere."""
    if not compiling.up_to_date(compiling.compiled_names()) or not compiling.twins():
        pytest.skip("nothing is compiled here: `make compiled`")
    shutil.copytree(compiling.PACKAGE, tmp_path / "vllama", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_twins_are_loaded_until_a_source_changes(clone: Path) -> None:
    assert loaded(clone) == "ExtensionFileLoader 65536"
    assert loaded(clone, VLLAMA_PURE="1") == "SourceFileLoader 65536"
    source = clone / "vllama" / "api" / "link.py"
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace("RECEIVE_BYTES = 64 * 1024", "RECEIVE_BYTES = 7"), encoding="utf-8")
    assert loaded(clone) == "SourceFileLoader 7"


def test_setup_names_sources_that_are_there() -> None:
    names = compiling.compiled_names()
    assert names == sorted(names)
    assert all((compiling.PACKAGE / name).is_file() for name in names)
