"""The commands against a real server with fake engines."""

import json
import re
from pathlib import Path

from tests.api.caches import CHAT
from tests.api.rig import Rig


def test_a_model_is_started_put_to_sleep_woken_and_stopped(rig: Rig):
    cli = rig.server.cli
    started = cli("start", CHAT)
    assert (started.returncode, started.stderr) == (0, "")
    lines = started.stdout.splitlines()
    log = next(line.removeprefix("log: ") for line in lines if line.startswith("log: "))
    assert "Application startup complete" in Path(log).read_text()
    assert f"{CHAT}: starting" in lines
    assert lines.index(f"log: {log}") < lines.index(f"{CHAT}: awake")
    assert lines[-1] == f"{CHAT}: awake"
    assert sum(line.startswith("log: ") for line in lines) == 1

    table = cli("ps").stdout.splitlines()
    assert len(table) == 4
    assert re.fullmatch(
        r"cpu: [0-9.]+ GiB for engines, [0-9.]+ [MG]iB of it free, [0-9]+ MiB held by vllama's own processes",
        table[3],
    )
    assert [word for word in (CHAT, "awake", "cpu", "MiB", log) if word not in table[1]] == []

    slept = cli("sleep", CHAT, "--level", "1", "--json")
    assert (json.loads(slept.stdout)["phase"], json.loads(slept.stdout)["level"]) == ("asleep", 1)
    assert json.loads(cli("ps", "--json").stdout)["instances"][0]["phase"] == "asleep"
    assert cli("wake_up", CHAT, "--json").returncode == 0
    slept = cli("sleep", CHAT)
    assert slept.stdout == f"{CHAT}: asleep at level 2\n"
    woken = cli("wake-up", CHAT)
    assert woken.stdout.splitlines()[-1] == f"{CHAT}: awake"
    assert f"{CHAT}: waking" in woken.stdout
    again = cli("start", CHAT)
    assert f"log: {log}" in again.stdout
    assert cli("stop", CHAT).stdout == f"{CHAT}: stopped\n"
    assert "memory_limit" in cli("info").stdout
    assert json.loads(cli("info", "--json").stdout)["config"]["port"] == rig.server.port


def test_what_the_server_refuses_is_said_on_stderr_and_exits_1(make_rig):
    rig = make_rig("die_at_start")
    unknown = rig.server.cli("start", "tiny/none")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("vllama: ")
    assert "tiny/none" in unknown.stderr
    assert unknown.stderr.count("\n") == 1
    failed = rig.server.cli("start", CHAT)
    assert failed.returncode == 1
    assert "log: " in failed.stdout
    assert "Engine core initialization failed" in failed.stderr


def test_a_variable_that_is_no_setting_is_said_once_in_the_log_and_by_info(make_rig):
    rig = make_rig(env={"VLLAMA_PORTT": "1", "VLLAMA_WORKERS": "2"})
    said = "VLLAMA_PORTT is no setting and changes nothing: did you mean VLLAMA_PORT?"
    log = rig.server.log.read_text()
    assert log.count("is no setting") == log.count(f"WARNING {said}") == 1
    assert rig.http.get("/control/info").json()["unknown_variables"] == [said]
    assert said in rig.server.cli("info").stdout
