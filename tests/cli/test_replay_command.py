"""events --save and replay: a journal as a file, told and folded with no server at hand."""

import datetime as dt
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.caches import CHAT, EMBED
from tests.api.rig import Rig
from tests.cli.inside import vllama

RECORDED = Path(__file__).parent.parent / "replay" / "journals" / "seed-14.jsonl"


def replay(*words: object) -> "subprocess.CompletedProcess[str]":
    return vllama("replay", *words)


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, list[dict]]:
    """A copy of a recorded journal, and its rows."""
    file = tmp_path / "journal.jsonl"
    file.write_text(RECORDED.read_text(encoding="utf-8"))
    return file, [json.loads(line) for line in file.read_text().splitlines()]


def write(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_what_a_server_has_done_is_saved_told_and_folds_to_what_was_live(rig: Rig, tmp_path: Path) -> None:
    assert rig.chat(CHAT, headers={"X-Request-Id": "first"}).status_code == 200
    assert rig.command("start", EMBED).status_code == 200
    file = tmp_path / "saved.jsonl"
    saved = rig.server.cli("events", "--save", str(file))
    assert (saved.returncode, saved.stderr) == (0, "")
    assert f"vllama replay {file}" in saved.stdout
    assert [path.name for path in tmp_path.iterdir() if "saved" in path.name] == ["saved.jsonl"]
    told = replay(file)
    assert (told.returncode, told.stderr) == (0, "")
    assert f"{CHAT}  is awake" in told.stdout
    assert f"{CHAT}  request " in told.stdout
    assert "(first) waits" in told.stdout
    *_, last = told.stdout.splitlines()
    assert last.startswith("the fold of ")
    assert CHAT in last
    end = json.loads(replay(file, "--json").stdout)["end"]
    assert end == {"agrees": True, "differences": []}


def test_save_takes_all_or_says_why_not(rig: Rig, tmp_path: Path) -> None:
    partly = rig.server.cli("events", "--save", str(tmp_path / "x"), "--follow")
    assert (partly.returncode, partly.stdout) == (2, "")
    nowhere = rig.server.cli("events", "--save", str(tmp_path / "none" / "x"))
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (1, 1)
    assert "cannot be written" in nowhere.stderr


def test_the_state_at_a_moment_is_what_the_records_before_it_make(recorded: tuple[Path, list[dict]]) -> None:
    file, rows = recorded
    changes = [row for row in rows if row["kind"] == "PhaseChanged"]
    for row in changes[:5]:
        shown = json.loads(replay(file, "--at", row["seq"], "--json").stdout)
        assert shown["seq"] == row["seq"]
        assert shown["states"][row["actor"]]["phase"] == row["to"]
    row = changes[2]
    then = dt.datetime.fromtimestamp(row["at"])
    for given in (f"@{row['at']}", then.isoformat()):
        shown = json.loads(replay(file, "--at", given, "--json").stdout)
        assert max(r["seq"] for r in rows[1:-1] if r["at"] <= row["at"]) == shown["seq"], given
    text = replay(file, "--at", row["seq"]).stdout
    assert f"after record {row['seq']}: {row['actor']} is {row['to'].replace('_', ' ')}" in text
    assert "\nbroker\n" in text


def test_a_time_of_day_is_on_the_journals_day(recorded: tuple[Path, list[dict]]) -> None:
    file, rows = recorded
    begun = dt.datetime.fromtimestamp(rows[0]["at"])
    late = (begun + dt.timedelta(hours=1)).replace(microsecond=0)
    before = max(row["seq"] for row in rows[1:-1] if row["at"] <= late.timestamp())
    shown = replay(file, "--at", late.strftime("%H:%M:%S"), "--json").stdout
    assert json.loads(shown)["seq"] == before


def test_a_fold_that_is_not_the_live_state_is_told(recorded: tuple[Path, list[dict]]) -> None:
    file, rows = recorded
    actor = next(name for name in rows[-1]["states"] if name != "broker")
    rows[-1]["states"][actor]["run"] += 1
    write(file, rows)
    wrong = replay(file)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert f"{actor}.run: saved " in wrong.stderr
    (difference,) = json.loads(replay(file, "--json").stdout)["end"]["differences"]
    assert difference.startswith(f"{actor}.run: saved ")


def test_a_file_without_an_end_is_told_but_held_against_nothing(recorded: tuple[Path, list[dict]]) -> None:
    file, rows = recorded
    write(file, rows[:-1])
    told = replay(file)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines()[-1].startswith("no End line")


def test_a_broken_file_is_one_line_that_names_its_line(recorded: tuple[Path, list[dict]]) -> None:
    file, _ = recorded
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:20], lines[20][:30]]))
    broken = replay(file)
    assert (broken.returncode, broken.stderr.count("\n")) == (1, 1)
    assert f"{file}:21: not JSON (the file was cut off there)" in broken.stderr
    assert replay(file.with_name("none")).returncode == 1


@pytest.mark.parametrize("given", ["soon", "@x", "25:00:00", "@1.0"])
def test_a_moment_that_is_none_is_a_wrong_command_line(recorded: tuple[Path, list[dict]], given: str) -> None:
    wrong = replay(recorded[0], "--at", given)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_stepping_tells_what_each_record_changed(recorded: tuple[Path, list[dict]]) -> None:
    file, rows = recorded
    told = replay(file, "--step")
    assert (told.returncode, told.stderr) == (0, "")
    assert "phase: stopped -> queued" in told.stdout
    seq = rows[50]["seq"]
    later = replay(file, "--step", "--at", seq)
    assert later.stdout.splitlines()[0] == next(
        line for line in told.stdout.splitlines() if f" {seq + 1}  " in line
    )
    steps = json.loads(replay(file, "--step", "--json").stdout)["steps"]
    assert len(steps) == sum(1 for row in rows if row["kind"] not in ("Snapshot", "End"))
    changed = next(step for step in steps if step["kind"] == "PhaseChanged")
    assert changed["changes"]["phase"]["after"] == changed["to"]


def test_on_a_terminal_one_record_at_a_time(recorded: tuple[Path, list[dict]]) -> None:
    file, rows = recorded
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "vllama.cli.main", "replay", str(file), "--step"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, b"\nq\n")  # the next one, then enough
        assert process.wait(60) == 0
        shown = os.read(ours, 2**16).decode()
    os.close(ours)
    numbers = [row["seq"] for row in rows if row["kind"] not in ("Snapshot", "End")]
    assert f" {numbers[1]}  " in shown
    assert f" {numbers[2]}  " not in shown
