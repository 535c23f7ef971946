"""models.yaml edited by programs: what people wrote stays, and of ten writers at once none is lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vllama.cli.assign import FLAGS
from vllama.config import ModelConfig, load_models
from vllama.errors import ConfigError
from vllama.models_file import edit, put

WRITTEN = """\
# Our models.

one/first:   # the good one
    dtype: auto    # why not
    devices:
      - 0
      - 1
    extra_args:
        max_num_seqs: 16  # measured
        quantization: "fp8"

# for the evenings
two/second: {pinned: true, aliases: [evening]}
three/third:
# the end
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(WRITTEN)
    return path


def assign(file: Path, model: str, values: dict | None = None, unset: tuple[str, ...] = ()) -> ModelConfig:
    return edit(file, model, lambda entry: put(entry, values or {}, unset))[1]


def test_a_change_keeps_all_else_as_it_stands(file: Path) -> None:
    entry = assign(file, "one/first", {"dtype": "float16"})
    assert entry.dtype == "float16"
    assert file.read_text() == WRITTEN.replace("dtype: auto    #", "dtype: float16 #")


def test_a_new_model_comes_last_and_one_with_nothing_to_say_goes(file: Path) -> None:
    assign(file, "four/fourth", {"pinned": True, "env": {"A": "1"}})
    assert file.read_text().startswith(WRITTEN.removesuffix("# the end\n"))
    assert "# the end" in file.read_text()
    assert list(load_models(file)) == ["one/first", "two/second", "three/third", "four/fourth"]
    assign(file, "four/fourth", unset=("pinned", "env.A"))
    assert list(load_models(file)) == ["one/first", "two/second", "three/third"]


def test_mappings_are_merged_and_a_part_can_be_taken_out(file: Path) -> None:
    entry = assign(file, "one/first", {"extra_args": {"max_num_seqs": 8, "x": [1, {"y": None}]}})
    assert entry.extra_args == {"max_num_seqs": 8, "quantization": "fp8", "x": [1, {"y": None}]}
    assert assign(file, "one/first", unset=("extra_args.x",)).extra_args["max_num_seqs"] == 8
    assert "# measured" in file.read_text()
    with pytest.raises(ConfigError, match="dtpye"):
        assign(file, "one/first", unset=("dtpye",))


@pytest.mark.parametrize(
    "broken", ["one/first:\n  dtype: [\n", "one/first:\n  dtpye: x\n", "- a\n", "a/b:\na/b:\n"]
)
def test_a_broken_file_is_never_overwritten(file: Path, broken: str) -> None:
    file.write_text(broken)
    with pytest.raises(ConfigError, match=f"{file}:"):
        assign(file, "one/first", {"pinned": True})
    assert file.read_text() == broken


def test_a_change_that_is_wrong_is_not_written(file: Path) -> None:
    with pytest.raises(ConfigError, match="gpu_memory_utilization"):
        assign(file, "one/first", {"gpu_memory_utilization": 7})
    with pytest.raises(ConfigError, match="evening"):
        assign(file, "one/first", {"aliases": ["evening"]})
    assert file.read_text() == WRITTEN
    assert [path.name for path in file.parent.iterdir() if path.suffix != ".lock"] == ["models.yaml"]


def test_a_file_of_comments_and_no_file_at_all_begin_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "models.yaml"
    assign(path, "a/b", {"pinned": True})
    assert path.read_text() == "a/b:\n  pinned: true\n"
    path.write_text("# nothing yet\n")
    assign(path, "a/b", {"pinned": True})
    assert path.read_text() == "# nothing yet\na/b:\n  pinned: true\n"


def test_a_link_stays_a_link_and_a_mode_a_mode(file: Path) -> None:
    file.chmod(0o600)
    link = file.with_name("link.yaml")
    link.symlink_to(file)
    assign(link, "one/first", {"pinned": True})
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_models(file)["one/first"].pinned


def test_every_key_has_its_flag() -> None:
    assert set(FLAGS) == set(ModelConfig.model_fields)


TEN = """
import os, sys
import ruamel.yaml  # what all of them need is read once
from vllama import models_file
from vllama.cli.main import main

ready, go = os.pipe()
writers = []
for n in range(10):
    writers.append(os.fork())
    if not writers[-1]:
        os.close(go)
        os.read(ready, 1)  # until no other holds it open: all are there
        sys.argv += ["--extra-arg", f"n{n}={n}", "--env", f"N{n}={n}"]
        main()
os.close(go)
print([os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) for writer in writers])
"""


def test_ten_at_once_lose_nothing(file: Path) -> None:
    env = os.environ | {"VLLAMA_URL": "http://127.0.0.1:9"}
    words = ["assign", "--config-dir", str(file.parent), "one/first"]
    done = subprocess.run(
        [sys.executable, "-c", TEN, *words], env=env, capture_output=True, text=True, timeout=100, check=True
    )
    assert (done.stdout.splitlines()[-1], done.stderr) == (str([0] * 10), "")
    entry = load_models(file)["one/first"]
    assert {f"n{n}": n for n in range(10)}.items() <= entry.extra_args.items()
    assert entry.env == {f"N{n}": str(n) for n in range(10)}
    assert [line for line in WRITTEN.splitlines() if line not in file.read_text()] == []
