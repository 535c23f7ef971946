"""The command line by itself: what it costs to import, where it looks for the server, what it says when there is none."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vllama.cli import control, render
from vllama.cli.client import Client, default_url
from vllama.cli.main import app
from vllama.config import load_config

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


HEAVY = (
    "torch", "vllm", "fastapi", "starlette", "uvicorn", "httpx", "pydantic", "yaml", "rich", "asyncio", "textual", "readline",
    "huggingface_hub",
)  # fmt: skip


@pytest.mark.parametrize(
    "ran",
    ["import vllama.cli.main", f"from vllama.cli.main import app; app(['ps', '--server', '{NOBODY}'])"],
    ids=["import", "ps"],
)
def test_nothing_heavy_is_imported(ran: str):
    script = f"""
import sys
try:
    {ran}
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_default_url_is_where_serve_listens():
    config = load_config({}, {})
    assert default_url({}) == f"http://{config.host}:{config.port}"


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({"VLLAMA_URL": "http://there:1"}, "http://there:1"),
        ({"VLLAMA_URL": "http://there:1", "VLLAMA_PORT": "2"}, "http://there:1"),
        ({"VLLAMA_PORT": "2"}, "http://127.0.0.1:2"),
        ({"VLLAMA_HOST": "0.0.0.0", "VLLAMA_PORT": "2"}, "http://127.0.0.1:2"),
        ({"VLLAMA_HOST": "::", "VLLAMA_PORT": "2"}, "http://[::1]:2"),
        ({"VLLAMA_HOST": "box"}, "http://box:33258"),
    ],
)
def test_the_environment_says_where_the_server_is(env: dict[str, str], url: str):
    assert default_url(env) == url
    assert Client(url).url == url


@pytest.mark.parametrize("given", ["ftp://x", "http://", "://", "http://x:port", "http://x:99999", "foo"])
def test_what_is_no_url_is_a_usage_error(given: str):
    done = run("ps", "--server", given)
    assert done.exit_code == 2
    assert done.stderr.startswith("vllama: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["info"],
        ["ps"],
        ["start", "m"],
        ["wake-up", "m"],
        ["stop", "m"],
        ["sleep", "m"],
        ["start", "m", "--json"],
        ["restart", "m"],
        ["run", "m", "hello"],
        ["pull", "m"],
        ["list"],
        ["show", "m"],
        ["rm", "m"],
        ["cp", "m", "n"],
        ["logs", "m"],
        ["logs", "m", "-f"],
        ["events"],
        ["events", "-f", "--model", "m"],
    ],
    ids=" ".join,
)
def test_without_a_server_each_command_says_so_and_exits_3(command: list[str]):
    done = run(*command, "--server", NOBODY)
    assert done.exit_code == 3
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert NOBODY in done.stderr
    assert "vllama serve" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["sleep", "m", "--level", "0"],
        ["sleep", "m", "--level", "4"],
        ["start"],
        ["nothing"],
        ["serve", "--port", "x"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_2(command: list[str]):
    assert run(*command).exit_code == 2


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["sleep", "m", "--level", "4"], ("4", "--level", "vllama sleep --help")),
        (["start"], ("model", "vllama start --help")),
        (["nothing"], ("nothing", "vllama --help")),
        (["ps", "--jsno"], ("--jsno", "vllama ps --help")),
        (["assign", "m"], ("nothing to change", "vllama assign --help")),
        (["assign", "m", "--sleep-level", "0"], ("--sleep-level", "vllama assign --help")),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_usage_error_is_one_line_that_says_where_to_look(command: list[str], said: tuple[str, ...]):
    words = [sys.executable, "-m", "vllama.cli.main", *command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vllama: ")
    assert done.stderr.count("\n") == 1
    assert [word for word in said if word not in done.stderr] == []


def test_exit_codes_are_what_the_page_says():
    page = Path(__file__).resolve().parents[2] / "design" / "commands.md"
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", page.read_text(), re.MULTILINE)
    codes = {name: int(code) for code, name in rows if hasattr(control, name)}
    assert codes == {"FAILED": 1, "USAGE": 2, "NO_SERVER": 3, "INTERRUPTED": 130}
    assert codes == {name: getattr(control, name) for name in codes}


def test_a_bad_setting_is_named_and_exits_2(tmp_path: Path):
    done = run("serve", "--memory-limit", "much", "--config-dir", str(tmp_path))
    assert done.exit_code == 2
    assert "memory_limit" in done.stderr
    assert "much" in done.stderr


@pytest.mark.parametrize("name", ["wakeup", "wake_up", "wake-up"])
def test_waking_has_three_spellings_and_is_starting(name: str):
    assert run(name, "--help").exit_code == 0
    assert "awake" in run(name, "--help").stdout


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "-"),
        (None, "-"),
        (512, "512 B"),
        (2**20, "1 MiB"),
        (4 * 2**30, "4.0 GiB"),
        (3 * 2**39, "1536.0 GiB"),
    ],
)
def test_sizes_are_for_people(count: object, text: str):
    assert render.size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0s"), (59.9, "59s"), (65, "1m05s"), (7801, "2h10m")])
def test_times_are_for_people(seconds: float, text: str):
    assert render.span(seconds) == text


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


def test_ps_on_a_terminal_prints_names_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    render.ps({"instances": [VIEW | {"model": "org/[bold]x"}], "devices": []})
    assert "org/[bold]x" in capsys.readouterr().out
