"""The command line by itself: what it costs to import, where it looks for the server, what it says when there is none."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tests.cli.inside import vllama
from vllama.cli import control, render, usage
from vllama.cli.address import DEFAULT_HOST, DEFAULT_PORT, default_url
from vllama.cli.client import Client
from vllama.cli.main import UsageError, app
from vllama.config import load_config

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there


def run(*arguments: str, **env: str | None):
    return CliRunner().invoke(app, list(arguments), env=env)


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


NO_URLS = (
    "ftp://x", "http://", "://", "http://x:port", "http://x:99999", "foo", "http://[::1", "http://a b:1", "http://x:1/\u00fc",
)  # fmt: skip


@pytest.mark.parametrize("given", NO_URLS)
def test_what_is_no_url_is_a_usage_error_that_says_whose_it_is(given: str):
    for done, source in [
        (run("ps", "--server", given), "--server"),
        (run("ps", VLLAMA_URL=given), "VLLAMA_URL"),
    ]:
        assert done.exit_code == 2
        assert done.stderr.startswith(f"vllama: {source}: {given!r} is not the URL of a server; write for")
        assert done.stderr.count("\n") == 1


COMMANDS = (
    "ps", "info", "list", "show m", "start m", "stop m", "sleep m", "restart m", "logs m", "events", "explain", "plan m",
    "run m hi", "pull a/b", "rm m", "cp m n", "top", "bench m", "assign m --pinned",
)  # fmt: skip
BAD_SETTINGS = [
    ({"VLLAMA_PORT": "banana"}, "setting port (from VLLAMA_PORT): must be a whole number (got 'banana')"),
    ({"VLLAMA_PORT": ""}, "setting port (from VLLAMA_PORT): must be a whole number (got '')"),
    ({"VLLAMA_PORT": "70000"}, "setting port (from VLLAMA_PORT): must be at most 65535 (got '70000')"),
    ({"VLLAMA_PORT": "0"}, "setting port (from VLLAMA_PORT): is 0"),
    ({"VLLAMA_HOST": "a b"}, "setting host (from VLLAMA_HOST): must be a name or an address"),
    ({"VLLAMA_HOST": "http://x"}, "setting host (from VLLAMA_HOST): must be a name or an address"),
    ({"VLLAMA_API_KEY": "a b"}, "setting api_key (from VLLAMA_API_KEY): must be one key or several"),
    ({"VLLAMA_CONTROL_KEY": "\u00fc"}, "setting control_key (from VLLAMA_CONTROL_KEY): must be one key"),
    ("port: many", "{file}:1: key port: must be a whole number (got 'many')"),
    ({"VLLAMA_PORT": "-1"}, "setting port (from VLLAMA_PORT): must be at least 0 (got '-1')"),
    ("# one\nport: 70000", "{file}:2: key port: must be at most 65535 (got 70000)"),
    ("port: true", "{file}:1: key port: must be a whole number (got True)"),
    ("port: 0", "{file}:1: key port: is 0"),
    ("host: 7", "{file}:1: key host: must be a name or an address"),
    ("host: [", "{file}:1: not valid YAML"),
    (b"port: \xff", "{file}: cannot be read"),
]


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [(command, *BAD_SETTINGS[n]) for command in COMMANDS for n in (0, -1)]
    + [("ps", *bad) for bad in BAD_SETTINGS[1:-1]],
)
def test_a_wrong_setting_is_named_with_its_source_by_every_command(
    tmp_path: Path, command: str, given: dict[str, str] | str | bytes, said: str
):
    file = tmp_path / "config.yaml"
    if not isinstance(given, dict):
        file.write_bytes(given if isinstance(given, bytes) else given.encode())
    env = dict.fromkeys(("VLLAMA_URL", "VLLAMA_HOST", "VLLAMA_PORT")) | {"VLLAMA_CONFIG_DIR": str(tmp_path)}
    done = run(*command.split(), **env | (given if isinstance(given, dict) else {}))
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"vllama: {said.format(file=file)}")
    assert "\u00fc" not in done.stderr  # a key is not repeated


@pytest.mark.parametrize("command", ["list", "rm m", "cp m n", "assign m --pinned"])
def test_a_setting_of_the_server_that_a_command_without_one_reads_is_named_too(tmp_path: Path, command: str):
    env = {"VLLAMA_CONFIG_DIR": str(tmp_path), "VLLAMA_PORT": "9", "VLLAMA_WORKERS": "many"}
    done = run(*command.split(), **env)
    assert (done.exit_code, done.stdout) == (2, "")
    assert (
        done.stderr == "vllama: setting workers (from VLLAMA_WORKERS): must be a whole number (got 'many')\n"
    )


def test_the_server_is_where_config_yaml_says_unless_the_environment_does(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("port: 40001\nhost: 0.0.0.0\n")
    env = {"VLLAMA_CONFIG_DIR": str(tmp_path)}
    assert default_url(env) == "http://127.0.0.1:40001"
    assert default_url(env | {"VLLAMA_PORT": "40002", "VLLAMA_HOST": "box"}) == "http://box:40002"
    (tmp_path / "config.yaml").write_text("workers: 2\n")
    assert default_url(env) == f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"


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
        (["serve", "--port"], ("--port", "vllama serve --help")),
        (["serve", "--port", "abc"], ("--port", "whole number", "'abc'", "vllama serve --help")),
        (["assign", "m"], ("nothing to change", "vllama assign --help")),
        (["assign", "m", "--sleep-level", "0"], ("--sleep-level", "vllama assign --help")),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_usage_error_is_one_line_that_says_where_to_look(command: list[str], said: tuple[str, ...]):
    done = vllama(*command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vllama: ")
    assert done.stderr.count("\n") == 1
    assert [word for word in said if word not in done.stderr] == []


def numbers() -> list[tuple[str, str]]:
    """Each command's options that take a number."""
    commands = get_command(app).commands  # type: ignore[attr-defined]  # a group has them
    return [
        (name, max(option.opts, key=len))
        for name, command in commands.items()
        for option in command.params
        if option.type.name.startswith(("int", "float"))
    ]


@pytest.mark.parametrize(("command", "option"), numbers())
def test_a_number_that_is_none_is_told_in_words_for_a_person(command: str, option: str):
    with pytest.raises(UsageError) as raised:
        app([command, "a/b", option, "abc"], standalone_mode=False)
    said = usage.words(raised.value, "vllama")
    assert re.match(
        rf"{option} must be a (whole )?number( from \d+ to \d+| of at least \d+)? \(got 'abc'\); ", said
    )
    assert said.endswith(f" {command} --help` lists what can be said")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("serve --port 70000", "--port must be a whole number from 0 to 65535 (got '70000'); "),
        ("serve --port=", "--port must be a whole number from 0 to 65535 (got ''); "),
        ("logs m -n -1", "--lines must be a whole number of at least 0 (got '-1'); "),
        ("assign m --priority 1.5", "--priority must be a whole number (got '1.5'); "),
        ("serve --shutdown-timeout x", "--shutdown-timeout must be a number (got 'x'); "),
    ],
)
def test_a_number_out_of_its_range_is_told_with_the_range(words: str, said: str):
    with pytest.raises(UsageError) as raised:
        app(words.split(), standalone_mode=False)
    assert usage.words(raised.value, "vllama").startswith(said)


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


@pytest.mark.parametrize(
    "name",
    ["info", "ps", "start", "stop", "sleep", "wake-up", "wakeup", "wake_up", "assign", "restart", "events", "explain", "plan",
     "list", "show", "pull", "rm", "cp", "bench", "doctor", "run"],
)  # fmt: skip
def test_a_command_answers_as_json_and_asks_the_server_that_is_named(name: str):
    command = get_command(app).commands[name]  # type: ignore[attr-defined]  # a group has them
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--json", "--server"} <= options


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


def test_values_are_told_as_models_yaml_has_them(capsys: pytest.CaptureFixture[str]):
    render.tree({"extra_args": {"a": True, "b": 2}, "x": None, "ram_bytes": 2048}, "")
    told = ["extra_args", "  a  true", "  b  2", "x           -", "ram_bytes   2048 (2 KiB)"]
    assert capsys.readouterr().out.splitlines() == told
