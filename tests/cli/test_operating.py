"""assign, restart, logs, events and completion, against a real server with fake engines."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import wait_until

from tests.api.caches import CHAT, EMBED
from tests.api.rig import Rig
from vllama.actors.journal import load

BOUND_S = 30.0


@pytest.fixture
def models_file(rig: Rig) -> Path:
    return Path(rig.http.get("/control/info").json()["models_file"]["path"])


def runs(rig: Rig, model: str = CHAT) -> int:
    return rig.kinds(model).count("EngineSpawned")


def test_a_change_that_needs_no_restart_holds_at_once(rig: Rig, models_file: Path) -> None:
    assert rig.chat(CHAT).status_code == 200
    done = rig.server.cli("assign", "Chat", "--pinned", "--unload-timeout", "60", "--alias", "mine")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{CHAT}: written to {models_file}:1\n"
    assert rig.chat("mine").headers["x-vllama-state"] == "warm"
    assert rig.view(CHAT)["restart_needed"] == []
    assert runs(rig) == 1


def test_a_models_priority_is_assigned_shown_and_holds_at_once(rig: Rig) -> None:
    assert rig.chat(CHAT).status_code == 200
    assert rig.server.cli("assign", CHAT, "--priority", "7").returncode == 0
    rig.until(CHAT, priority=7, restart_needed=[])
    assert f"{CHAT}: priority 7" in rig.server.cli("ps").stdout
    assert rig.server.cli("assign", CHAT, "--priority", "1001").returncode == 1
    assert rig.server.cli("assign", CHAT, "--unset", "priority").returncode == 0
    rig.until(CHAT, priority=0)
    assert ": priority" not in rig.server.cli("ps").stdout
    assert runs(rig) == 1


def test_a_change_that_needs_a_restart_says_so_and_touches_no_other_model(rig: Rig) -> None:
    cli = rig.server.cli
    assert rig.chat(CHAT).status_code == 200
    assert rig.command("start", EMBED).status_code == 200
    done = cli("assign", CHAT, "--max-model-len", "64", "--extra-arg", "seed=7")
    assert (
        f"{CHAT}: runs without the changes of extra_args, max_model_len: `vllama restart {CHAT}`"
        in done.stdout
    )
    assert f"`vllama restart {CHAT}`" in cli("ps").stdout
    assert rig.view(CHAT)["restart_needed"] == ["extra_args", "max_model_len"]
    assert rig.chat(CHAT).headers["x-vllama-state"] == "warm"
    log = rig.view(CHAT)["log"]
    assert cli("restart", CHAT).stdout == f"log: {log}\n{CHAT}: awake\n"
    assert rig.view(CHAT)["restart_needed"] == []
    log = Path(rig.view(CHAT)["log"]).read_text()
    assert "'max-model-len': '64'" in log
    assert "'seed': '7'" in log
    done = cli("assign", CHAT, "--unset", "max_model_len", "--restart", "--json")
    report = json.loads(done.stdout)
    assert (report["restarted"]["phase"], report["restart_needed"]) == ("awake", [])
    assert (runs(rig), runs(rig, EMBED)) == (3, 1)
    assert "InstanceConfigured" not in rig.kinds(EMBED)
    shown = json.loads(cli("assign", CHAT, "--show", "--json").stdout)
    assert (shown["entry"]["extra_args"], shown["entry"]["max_model_len"]) == ({"seed": 7}, None)


def test_restart_of_a_model_that_does_not_run_starts_it(rig: Rig) -> None:
    for _ in range(2):
        assert rig.server.cli("restart", CHAT).stdout.endswith(f"{CHAT}: awake\n")
        assert rig.command("stop", CHAT).json()["phase"] == "stopped"


def test_an_edit_by_hand_is_noticed_and_a_broken_one_changes_nothing(rig: Rig, models_file: Path) -> None:
    def info() -> dict:
        return rig.http.get("/control/info").json()["models_file"]

    assert rig.chat(CHAT).status_code == 200
    models_file.parent.mkdir(exist_ok=True)
    models_file.write_text(f"{CHAT}:\n  aliases: [mine]\n")
    assert wait_until(lambda: rig.chat("mine").status_code == 200, BOUND_S)
    broken = f"{CHAT}:\n  alias: [other]\n"
    models_file.write_text(broken)
    assert wait_until(lambda: info()["problem"], BOUND_S)
    assert info()["problem"].startswith(f"{models_file}:2: model {CHAT}: key alias: is unknown")
    assert rig.chat("mine").status_code == 200
    refused = rig.server.cli("assign", CHAT, "--pinned")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert f"{models_file}:2" in refused.stderr
    assert models_file.read_text() == broken
    models_file.write_text(f"{CHAT}:\n  aliases: [other]\n")
    assert wait_until(lambda: rig.chat("other").status_code == 200, BOUND_S)
    assert info()["problem"] == ""
    assert f"{models_file} is right again" in rig.server.log.read_text()
    assert rig.chat("mine").status_code == 404
    assert runs(rig) == 1


def test_a_change_of_the_entry_clears_failed(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig("die_at_start", env={"VLLAMA_RESTARTS_MAX": "1"})
    assert rig.chat(CHAT).status_code == 502
    assert rig.view(CHAT)["phase"] == "failed"
    rig.faults()
    assert rig.chat(CHAT).status_code == 502
    assert rig.server.cli("assign", CHAT, "--dtype", "float32").returncode == 0
    assert rig.chat(CHAT).status_code == 200


def test_assign_works_without_a_server_and_says_what_is_wrong(tmp_path: Path, rig: Rig) -> None:
    def cli(*words: str) -> "subprocess.CompletedProcess[str]":
        nobody = ("--server", "http://127.0.0.1:9", "--config-dir", str(tmp_path))
        return rig.server.cli("assign", *words, *nobody)

    assert cli("a/b", "--devices", "0,1", "--gpu-memory", "0.5").returncode == 0
    assert (tmp_path / "models.yaml").read_text() == (
        "a/b:\n  gpu_memory_utilization: 0.5\n  devices:\n  - 0\n  - 1\n"
    )
    assert cli("a/b").returncode == 2
    assert cli("a/b", "--env", "x").returncode == 2
    wrong = cli("a/b", "--gpu-memory", "most")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    unknown = rig.server.cli("assign", "tiny/chatt", "--pinned")
    assert unknown.returncode == 1
    assert f"did you mean {CHAT}" in unknown.stderr
    late = cli("a/b", "--pinned", "--restart")
    assert late.returncode == 3


def test_logs_are_shown_and_followed(rig: Rig) -> None:
    cli = rig.server.cli
    none = cli("logs", CHAT)
    assert (none.returncode, none.stdout) == (1, "")
    assert f"vllama start {CHAT}" in none.stderr
    assert rig.chat(CHAT).status_code == 200
    whole = Path(rig.view(CHAT)["log"]).read_text().splitlines()
    assert cli("logs", "Chat", "-n", "2").stdout.splitlines() == whole[-2:]
    assert cli("logs", CHAT, "--lines", "0").stdout == ""
    command = [sys.executable, "-m", "vllama.cli.main", "logs", CHAT, "-f", "-n", "1"]
    with subprocess.Popen(command, env=rig.server.environ, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline().strip() == whole[-1]
        assert rig.chat(CHAT).status_code == 200
        assert "chat/completions" in following.stdout.readline()
        following.send_signal(signal.SIGINT)
        assert following.wait(BOUND_S) == 0
        following.stdout.read()


def test_events_can_be_saved_and_folded(rig: Rig) -> None:
    assert rig.chat(CHAT).status_code == 200
    assert rig.command("start", EMBED).status_code == 200
    rows = [json.loads(line) for line in rig.server.cli("events").stdout.splitlines()]
    assert (rows[0]["kind"], rows[-1]["kind"]) == ("Snapshot", "End")
    states, records = load(rows)
    assert {view.model: view.phase for view in states.views()} == {CHAT: "awake", EMBED: "awake"}
    rows = [json.loads(line) for line in rig.server.cli("events", "--model", "Chat").stdout.splitlines()]
    states, records = load(rows)
    assert {record.actor for record in records} == {CHAT}
    assert {view.model for view in states.views()} == {CHAT}
    command = [sys.executable, "-m", "vllama.cli.main", "events", "-f", "-m", CHAT]
    with subprocess.Popen(command, env=rig.server.environ, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        followed = [json.loads(following.stdout.readline())]
        while followed[-1]["seq"] < rows[-1]["seq"] and len(followed) < len(rows) - 1:
            followed.append(json.loads(following.stdout.readline()))
        assert rig.command("stop", CHAT).status_code == 200
        while followed[-1].get("to") != "stopped":
            followed.append(json.loads(following.stdout.readline()))
        following.send_signal(signal.SIGINT)
        assert following.wait(BOUND_S) == 0
        following.stdout.read()
    assert [view.phase for view in load(followed)[0].views()] == ["stopped"]


def test_explain_of_what_is_neither_model_nor_request_says_so_in_one_sentence(rig: Rig) -> None:
    done = rig.server.cli("explain", "tiny/chatt")
    assert (done.returncode, done.stdout) == (1, "")
    start, _, rest = done.stderr.partition("; ")
    assert (
        start
        == f"vllama: no complete model 'tiny/chatt' in {rig.server.environ['VLLAMA_TRANSFORMERS_CACHE']}"
    )
    assert rest == (
        f"did you mean {CHAT} or tiny/rerank or tiny/embed? `vllama pull tiny/chatt` brings a model of Hugging Face's hub there "
        "(nor does the server remember a request of this id)\n"
    )


def test_the_shell_completes_model_names(rig: Rig) -> None:
    rig.server.cli("assign", CHAT, "--alias", "tiny-mine")

    def completed(line: str) -> set[str]:
        words = line.split(" ")
        env = rig.server.environ | {
            "_VLLAMA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1),
        }  # fmt: skip
        script = "import sys; sys.argv[0] = 'vllama'; from vllama.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        return set(done.stdout.split())

    for command in (
        "run",
        "show",
        "rm",
        "rm x",
        "cp",
        "start",
        "stop",
        "sleep",
        "restart",
        "logs",
        "assign",
        "wake-up",
        "events --model",
    ):
        assert completed(f"vllama {command} tiny/c") == {CHAT}, command
    assert completed("vllama start tiny") >= {CHAT, EMBED, "tiny-mine"}
    assert "tiny/chat" not in completed("vllama start x")


def test_info_says_where_each_value_came_from(rig: Rig) -> None:
    text = rig.server.cli("info").stdout
    (port,) = [line for line in text.splitlines() if line.split()[:1] == ["port"]]
    assert port.split()[1] == str(rig.server.port)
    assert "default" not in port
    assert any("1073741824 (1.0 GiB)" in line for line in text.splitlines() if "body_bytes_max" in line)
    assert any(line.split()[:1] == ["unload_mode"] and "(default)" in line for line in text.splitlines())
    assert os.sep in rig.http.get("/control/info").json()["models_file"]["path"]
