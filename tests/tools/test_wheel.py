"""The wheel: its metadata, what is in it, and that its extras name what the index has."""

import json
import sys
import tomllib
from email import message_from_string
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.wheels import PIP, ROOT, build, run, tracked


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"), pure=True)


@pytest.fixture
def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(files.read(name).decode())


def test_its_metadata_is_that_of_pyproject(metadata: Message) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (metadata["Name"], metadata["Version"]) == (project["name"], project["version"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == project["requires-python"]
    assert (
        set(metadata.get_all("Provides-Extra", []))
        == set(project["optional-dependencies"])
        >= {"vllm", "cpu", "otel"}
    )
    assert metadata["Summary"] == project["description"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "# vllama" in metadata.get_payload()


def test_everything_that_is_vllamas_is_in_it_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as files:
        names = set(files.namelist())
        info = f"vllama-{wheel.name.split('-')[1]}.dist-info"
        assert "Apache License" in files.read(f"{info}/licenses/LICENSE").decode()
        assert "vllama = vllama.cli.main:main" in files.read(f"{info}/entry_points.txt").decode()
    wanted = set(tracked("vllama"))
    assert "vllama/py.typed" in wanted
    assert wanted <= names
    assert {name.partition("/")[0] for name in names} == {"vllama", info}


def test_the_extra_for_gpus_can_be_had(wheel: Path, tmp_path: Path, metadata: Message) -> None:
    """Asked of the index as pip would install it, without gigabytes of it being loaded."""
    (needed,) = (line for line in metadata.get_all("Requires-Dist", []) if 'extra == "vllm"' in line)
    report = tmp_path / "report.json"
    asked = ("install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet", "--report", str(report))
    run(sys.executable, *PIP, *asked, f"{wheel}[vllm]", needed.partition(";")[0], cwd=tmp_path)
    found = {
        item["metadata"]["name"]: item["metadata"]["version"]
        for item in json.loads(report.read_text())["install"]
    }
    assert set(found) == {"vllama", "vllm"}
