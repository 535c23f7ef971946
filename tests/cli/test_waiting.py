"""How long a command waits: what the server knows by heart must come at once, what takes its time says for what."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.api.caches import CHAT, make_cache
from tests.api.rig import Rig
from vllama.cli import client as http
from vllama.cli import render
from vllama.cli.main import app

BOUND_S = 30.0


@pytest.fixture
def mute() -> Iterator[str]:
    """The URL of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    "words", [["ps"], ["info"], ["ps", "--json"], ["logs", "m"], ["events"]], ids=" ".join
)
def test_a_server_that_does_not_answer_is_given_up_with_a_clear_line(
    mute: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "ANSWER_S", 0.1)
    done = CliRunner().invoke(app, [*words, "--server", mute])
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert f"{mute} did not answer in time" in done.stderr


def test_a_command_waits_longer_than_what_is_known_by_heart(
    mute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "ANSWER_S", 0.1)
    client = http.Client(mute)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        slow = http.Client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        started = pool.submit(slow.post, "/control/start", {"model": "m"})
        connection, _ = listener.accept()
        with connection:
            with pytest.raises(
                http.ServerDownError, match="in time"
            ):  # the deadline of the others has passed by then
                client.get("/control/ps")
            assert not started.done()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n" + b'{"phase": "awake"}')
            assert started.result(BOUND_S) == {"phase": "awake"}


@pytest.fixture
def stuck_disk(tmp_path: Path, vllama_server: object) -> Iterator[Path]:
    """A cache one file of which cannot be read to its end, as on a disk that hangs; it ends before the server does."""
    hub = make_cache(tmp_path / "stuck" / "hub")
    (snapshot,) = (hub / "models--tiny--chat" / "snapshots").iterdir()
    pipe = snapshot / "sentence_bert_config.json"
    os.mkfifo(pipe)
    # The server is at the disk once the reading end is open; it stays there until this one is closed.
    opened: list[int] = []
    opener = threading.Thread(target=lambda: opened.append(os.open(pipe, os.O_WRONLY)))
    opener.start()
    yield hub
    pipe_end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # lets an opener go that nobody met
    opener.join()
    for fd in opened:
        os.close(fd)
    os.close(pipe_end)
    pipe.unlink()


def test_ps_and_info_answer_while_the_disk_hangs(
    stuck_disk: Path, vllama_server: Callable[..., object]
) -> None:
    server = vllama_server(stuck_disk, fake=True)
    for words in (("ps", "--json"), ("info", "--json")):
        command = [sys.executable, "-m", "vllama.cli.main", *words]
        done = subprocess.run(
            command, env=server.environ, capture_output=True, text=True, timeout=BOUND_S, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert [device["id"] for device in json.loads(done.stdout)["devices"]] == ["cpu"]


def test_who_cuts_off_what_is_in_flight_is_not_told_to_do_so() -> None:
    view = {"model": CHAT, "phase": "draining", "in_flight": 1}
    assert "--force" in render.waiting(view, "sleeps")
    assert render.waiting(view, "sleeps", force=True) == f"{CHAT}: draining"


@pytest.mark.parametrize("verb", ["sleep", "stop"])
def test_what_waits_for_requests_in_flight_says_so_and_names_the_way_out(rig: Rig, verb: str) -> None:
    with rig.stream(CHAT, gate="g") as (_, lines), ThreadPoolExecutor(1) as pool:
        next(lines)
        command = [sys.executable, "-m", "vllama.cli.main", verb, "Chat"]
        with subprocess.Popen(
            command, env=rig.server.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as asked:
            assert asked.stderr is not None
            said = pool.submit(asked.stderr.readline).result(BOUND_S)
            assert f"{CHAT}: 1 request is in flight" in said
            assert f"`vllama sleep {CHAT} --force`" in said
            rig.let(CHAT, "g")
            out, err = asked.communicate(timeout=BOUND_S)
            assert (asked.returncode, err) == (0, "")
            assert out.startswith(f"{CHAT}: {'asleep' if verb == 'sleep' else 'stopped'}")
        assert list(lines)[-1] == "[DONE]"
