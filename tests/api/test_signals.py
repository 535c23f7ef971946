"""The end of a server in the middle of a stream: one signal, to it alone or to its group, a second one, a bound."""

import json
import os
import signal
import subprocess
import sys

import httpx
import pytest
from serving import wait_until

from tests.api.caches import CHAT, EMBED
from tests.api.rig import BOUND_S, Rig, error_in, error_of


def draining(rig: Rig) -> httpx.Response:
    """The answer to a new request, once the server has taken the signal."""
    answers: list[httpx.Response] = []

    def refused() -> bool:
        answers.append(rig.http.get("/health"))
        return answers[-1].status_code == 503

    assert wait_until(refused, BOUND_S)
    return rig.http.post("/v1/embeddings", json={"model": EMBED, "input": "x"})


def send(rig: Rig, number: signal.Signals, *, group: bool) -> None:
    (os.killpg if group else os.kill)(rig.server.pid, number)


@pytest.mark.trap(39)
@pytest.mark.parametrize(
    ("number", "group"),
    [
        (signal.SIGTERM, False),
        (signal.SIGINT, False),
        (signal.SIGHUP, False),
        (signal.SIGINT, True),
        (signal.SIGHUP, True),
    ],
    ids=lambda value: getattr(value, "name", "group" if value else "alone"),
)
def test_what_runs_is_finished_and_what_is_new_is_refused(make_rig, number: signal.Signals, group: bool):
    rig = make_rig(own_group=True)
    with rig.stream(CHAT, gate="a") as (_, lines):
        next(lines)
        rig.waits_at(CHAT, "a")
        rig.server.look()
        port = rig.view(CHAT)["port"]
        send(rig, number, group=group)
        new = draining(rig)
        assert (new.status_code, error_of(new)["code"]) == (503, "shutting_down")
        assert int(new.headers["retry-after"]) >= 1
        assert rig.http.get("/control/ps").status_code == 200
        httpx.post(f"http://127.0.0.1:{port}/fake/gate?name=a", trust_env=False).raise_for_status()
        rest = list(lines)
    assert rest[-1] == "[DONE]"
    assert rig.server.process.wait(BOUND_S) == 0
    assert rig.server.wait_nothing_left(5) == []


def test_a_second_signal_cuts_off_what_runs(make_rig):
    rig = make_rig()
    with rig.stream(CHAT, gate="a") as (_, lines):
        next(lines)
        rig.waits_at(CHAT, "a")
        rig.server.look()
        send(rig, signal.SIGINT, group=False)
        draining(rig)
        send(rig, signal.SIGINT, group=False)
        last = list(lines)[-1]
    assert error_in(json.loads(last))["code"] == "shutting_down"
    assert rig.server.process.wait(BOUND_S) == 0
    assert rig.server.wait_nothing_left(5) == []


def test_the_drain_has_a_bound(make_rig):
    rig = make_rig(env={"VLLAMA_SHUTDOWN_TIMEOUT_S": "0.5"})
    with rig.stream(CHAT, gate="a") as (_, lines):
        next(lines)
        rig.waits_at(CHAT, "a")
        rig.server.look()
        send(rig, signal.SIGTERM, group=False)
        last = list(lines)[-1]
    assert error_in(json.loads(last))["code"] == "shutting_down"
    assert rig.server.process.wait(BOUND_S) == 0


def test_a_taken_port_is_one_line_that_names_its_holder(make_rig):
    rig = make_rig()
    command = [sys.executable, "-m", "vllama.cli.main", "serve", "--port", str(rig.server.port)]
    done = subprocess.run(
        command, env=rig.server.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"pid {rig.server.pid} " in done.stderr
    assert rig.http.get("/health").status_code == 200


def test_a_broken_models_file_is_one_line_that_names_it(rig: Rig):
    (rig.server.config_dir / "models.yaml").write_text("a: [")
    command = [sys.executable, "-m", "vllama.cli.main", "serve", "--port", "0"]
    done = subprocess.run(
        command, env=rig.server.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "models.yaml" in done.stderr
    assert "Traceback" not in done.stderr
