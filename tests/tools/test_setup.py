"""Set-up says what is missing, does nothing twice, and takes no unfinished install for a finished one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.fake_gpu import GIB, FakeGpus

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path):
    """A folder with the set-up script and a pyproject.toml, nothing else."""
    (tmp_path / "tools").mkdir()
    for name in ("tools/environment.py", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def fake_python(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(clone: Path, path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(clone / "tools" / "environment.py")],
        env={**os.environ, "PATH": str(path), "PIP_NO_INDEX": "1"} | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def finished(clone: Path, extra: str = "") -> None:
    """What a finished install of `clone` (of the extra that this machine wants) looks like to set-up, by its own words."""
    venv = clone / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    script = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import environment as setup;"
        "print(json.dumps(setup.wanted(sys.argv[2] or ('vllm' if setup.gpu_count() else 'cpu'))))"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, str(clone / "tools"), extra],
        capture_output=True,
        text=True,
        check=True,
    )
    (venv / "vllama-setup.json").write_text(done.stdout)


def test_no_usable_python_is_named_with_the_reason(clone, tmp_path):
    path = tmp_path / "bin"
    fake_python(path, "python3", "echo 3.9")
    fake_python(path, "python3.12", "echo \"ModuleNotFoundError: No module named 'ensurepip'\" >&2; exit 1")
    done = run(clone, path)
    assert done.returncode == 1
    assert "is Python 3.9" in done.stderr
    assert "No module named 'ensurepip'" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr
    assert not (clone / ".venv").exists()


def test_finished_install_is_left_alone_without_a_word(clone, tmp_path):
    finished(clone)
    done = run(clone, tmp_path / "empty")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("extra", "kept"), [("vllm", True), ("cpu", False)])
def test_where_there_is_a_gpu_the_extra_is_vllm(clone, tmp_path, gpu_driver, extra, kept):
    gpus = FakeGpus(tmp_path / "gpus")
    gpus.add(8 * GIB)
    finished(clone, extra)
    done = run(clone, tmp_path / "empty", **gpus.env(gpu_driver))
    assert (done.returncode == 0) is kept
    assert ("making it anew" in done.stdout) is not kept


def test_change_of_linter_settings_installs_nothing(clone, tmp_path):
    finished(clone)
    with (clone / "pyproject.toml").open("a") as file:
        file.write("\n[tool.other]\n")
    assert run(clone, tmp_path / "empty").returncode == 0


def test_unfinished_install_is_made_anew(clone, tmp_path):
    finished(clone)
    (clone / ".venv" / "vllama-setup.json").unlink()
    done = run(clone, tmp_path / "empty")
    assert "making it anew" in done.stdout
    assert "no usable Python" in done.stderr


def test_moved_clone_is_made_anew(clone, tmp_path):
    finished(clone)
    stamp = clone / ".venv" / "vllama-setup.json"
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"root": "/elsewhere"}))
    assert "making it anew" in run(clone, tmp_path / "empty").stdout


def test_folder_that_is_no_virtual_environment_is_not_removed(clone, tmp_path):
    (clone / ".venv").mkdir()
    (clone / ".venv" / "precious").write_text("")
    done = run(clone, tmp_path / "empty")
    assert done.returncode == 1
    assert "is not a virtual environment" in done.stderr
    assert (clone / ".venv" / "precious").exists()


@pytest.mark.slow
def test_failed_pip_is_reported_and_leaves_no_stamp(clone):
    done = run(clone, Path(sys.executable).resolve().parent)
    assert done.returncode == 1
    assert "pip failed" in done.stderr
    assert not (clone / ".venv" / "vllama-setup.json").exists()
