"""`kill -9` of an engine at any moment: its callers hear of it by name, and the next request starts it again."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from serving import Vllama, wait_until

from tests.api.caches import CHAT, EMBED
from tests.api.rig import Rig, chat_body, error_in, error_of

if TYPE_CHECKING:
    import httpx

Make = Callable[..., Vllama]


@pytest.fixture
def rig(vllama_server: Make, fake_cache: Path, tmp_path: Path):
    faults = tmp_path / "faults"
    env = {"FAKE_VLLM_FAULTS_FILE": str(faults), "VLLAMA_BACKOFF_S": "0"}
    rig = Rig(vllama_server(fake_cache, fake=True, env=env), faults)
    yield rig
    rig.close()


def kill_engine(rig: Rig, model: str) -> None:
    os.kill(rig.view(model)["pid"], signal.SIGKILL)


def test_idle(rig: Rig) -> None:
    assert rig.chat(CHAT).status_code == 200
    kill_engine(rig, CHAT)
    rig.until(CHAT, phase="stopped")
    assert 'POST /v1/chat/completions HTTP/1.1" 200' in rig.server.cli("logs", CHAT).stdout
    assert "HTTP/1.1" not in rig.view(CHAT)["error"]
    assert f"{CHAT}: the engine was killed by signal 9 (log: " in rig.server.cli("ps").stdout
    assert rig.chat(CHAT).status_code == 200
    assert rig.kinds(CHAT).count("EngineSpawned") == 2


def test_streaming(rig: Rig) -> None:
    with rig.stream(CHAT, gate="g") as (answer, lines):
        assert answer.status_code == 200
        next(lines)
        kill_engine(rig, CHAT)
        rest = list(lines)
    error = error_in(json.loads(rest[-1]))
    assert error["code"] == "engine_lost"
    assert CHAT in error["message"]
    rig.until(CHAT, phase="stopped")  # a request that crosses the death itself may still be told of it
    assert rig.chat(CHAT).status_code == 200


def test_starting(rig: Rig, tmp_path: Path) -> None:
    """Who waits gets one automatic restart."""
    (tmp_path / "faults").write_text(f"once:{CHAT}:hang_at_start")
    answers: list[httpx.Response] = []
    caller = threading.Thread(target=lambda: answers.append(rig.chat(CHAT)))
    caller.start()
    rig.until(CHAT, phase="starting")
    assert wait_until(lambda: bool(rig.view(CHAT)["pid"]), 30)
    kill_engine(rig, CHAT)
    caller.join(60)
    assert answers[0].status_code == 200
    assert rig.kinds(CHAT).count("EngineSpawned") >= 2  # one more if it lost its port on the way


def test_asleep(rig: Rig) -> None:
    assert rig.chat(CHAT).status_code == 200
    assert rig.command("sleep", CHAT, level=2).json()["phase"] == "asleep"
    kill_engine(rig, CHAT)
    rig.until(CHAT, phase="stopped")
    assert rig.chat(CHAT).headers["x-vllama-state"] == "cold"


def test_again_and_again_ends_in_failed_and_blocks_no_other(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "faults").write_text(f"{CHAT}:die_at_start")
    codes = []
    for _ in range(40):
        answer = rig.chat(CHAT)
        codes.append(answer.status_code)
        if rig.view(CHAT)["phase"] == "failed":
            break
    assert set(codes) == {502}
    error = error_of(rig.chat(CHAT))
    assert error["code"] == "start_failed"
    assert CHAT in error["message"]
    assert "vllama start" in error["message"]
    embedded = rig.http.post("/v1/embeddings", json={"model": EMBED, "input": ["a"]})
    assert embedded.status_code == 200
    (tmp_path / "faults").write_text("")
    assert rig.command("start", CHAT).json()["phase"] == "awake"
    assert rig.http.post("/v1/chat/completions", json=chat_body(CHAT)).status_code == 200
