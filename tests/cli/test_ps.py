"""`vllama ps` as it is printed."""

import pytest

from vllama.cli import render

VIEW = {
    "model": "org/chat",
    "phase": "asleep",
    "level": 2,
    "devices": ["cpu"],
    "memory_bytes": 0,
    "residue_bytes": 2**28,
    "in_flight": 0,
    "waiting": 0,
    "last_used": 1.0,
    "port": 33300,
    "log": "/logs/a.log",
    "pid": 7,
    "mode": "fork",
    "mode_reason": "",
    "error": "",
}


def test_ps_in_a_pipe_is_plain_columns(capsys: pytest.CaptureFixture[str]):
    render.ps(
        {
            "instances": [VIEW, VIEW | {"phase": "failed", "error": "no weights", "last_used": None}],
            "devices": [],
        }
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "MODEL"
    assert [column for column in render.PS_COLUMNS if column not in lines[0]] == []
    assert [
        cell
        for cell in ("org/chat", "asleep", "2", "cpu", "256 MiB", "33300", "/logs/a.log")
        if cell not in lines[1]
    ] == []
    assert lines[-1] == "org/chat: no weights"


def test_ps_says_why_an_engine_was_started_plainly_unless_that_was_asked_for(
    capsys: pytest.CaptureFixture[str],
):
    plain = {"mode": "exec", "mode_reason": "its own env sets OMP_NUM_THREADS"}
    render.ps(
        {
            "instances": [VIEW | plain, VIEW | {"mode": "exec", "mode_reason": "engine_start is exec"}],
            "devices": [],
        }
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:] == ["", "org/chat: started plainly, not forked: its own env sets OMP_NUM_THREADS"]


def test_ps_tells_a_long_error_in_one_line_and_where_the_rest_is(capsys: pytest.CaptureFixture[str]):
    error = "the engine exited with code 1\n" + "  File x, line 1\n" * 18 + "ValueError: no such dtype"
    render.ps({"instances": [VIEW | {"phase": "failed", "error": error}], "devices": []})
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "",
        "org/chat: the engine exited with code 1: ValueError: no such dtype (log: /logs/a.log; `vllama logs org/chat` "
        "shows it)",
    ]
    render.ps({"instances": [VIEW | {"error": "x" * 5000}], "devices": []})
    assert len(capsys.readouterr().out.splitlines()[-1]) < 500


def test_ps_tells_no_line_of_what_went_well_as_the_reason_of_an_error(capsys: pytest.CaptureFixture[str]):
    well = [
        "(APIServer pid=7) INFO:     Application startup complete.",
        "INFO 11-26 10:00:00 [loggers.py:1] Engine 000: idle",
    ]
    killed = "the engine was killed by signal 9"
    for told, shown in (
        ([*well], killed),
        (["ERROR 11-26 it is broken", *well], f"{killed}: ERROR 11-26 it is broken"),
        ([*well, "INFORMATION is missing"], f"{killed}: INFORMATION is missing"),
    ):
        render.ps({"instances": [VIEW | {"error": "\n".join([killed, *told])}], "devices": []})
        line = capsys.readouterr().out.splitlines()[-1]
        assert line == f"org/chat: {shown} (log: /logs/a.log; `vllama logs org/chat` shows it)"


def test_ps_tells_of_each_device_what_is_in_no_models_row(capsys: pytest.CaptureFixture[str]):
    cpu = {"id": "cpu", "kind": "cpu", "name": "CPU RAM", "total_bytes": 4 * 2**30, "booked_bytes": 2**30}
    gpu = cpu | {"id": "GPU-1", "kind": "cuda", "name": "NVIDIA X", "total_bytes": 80 * 2**30}
    devices = [
        cpu | {"shared_bytes": 457 * 2**20, "free_bytes": 2**31},
        gpu | {"shared_bytes": 0, "free_bytes": 0},
    ]
    render.ps({"instances": [VIEW], "devices": devices})
    assert capsys.readouterr().out.splitlines()[2:] == [
        "",
        "cpu: 4.0 GiB for engines, 2.0 GiB of it free, 457 MiB held by vllama's own processes",
        "",
        "GPU-1 (NVIDIA X): 80.0 GiB for engines, none of it free",
    ]


def test_ps_on_a_terminal_prints_names_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    render.ps({"instances": [VIEW | {"model": "org/[bold]x"}], "devices": []})
    assert "org/[bold]x" in capsys.readouterr().out
