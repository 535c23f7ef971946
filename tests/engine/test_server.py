"""The whole server over real engines: signals and kills in the middle of a stream, a model that cannot start."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from models import CHAT
from serving import Vllama, wait_until

from tests.api.rig import error_in, error_of

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

Make = Callable[..., Vllama]
BOUND_S = 240.0
TINY = "tiny/qwen3"


def client(server: Vllama) -> httpx.Client:
    return httpx.Client(base_url=server.url, trust_env=False, timeout=BOUND_S)


def chat(model: str, **more: object) -> dict[str, object]:
    question = {"role": "user", "content": "What is the capital of France?"}
    return {"model": model, "messages": [question], "temperature": 0, **more}


@contextmanager
def stream(http: httpx.Client, model: str, tokens: int) -> Iterator[Iterator[str]]:
    usage = {"include_usage": True}
    body = chat(model, stream=True, max_tokens=tokens, ignore_eos=True, stream_options=usage)
    with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        yield (line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: "))


def pid_of(http: httpx.Client, model: str) -> int:
    views = http.get("/control/ps").json()["instances"]
    return next(view["pid"] for view in views if view["model"] == model)


def test_sigterm_to_the_whole_group_cuts_no_stream_and_exits_0(vllama_server: Make, tiny_cache: Path) -> None:
    server = vllama_server(tiny_cache, own_group=True)
    with client(server) as http, stream(http, TINY, 200) as pieces:
        next(pieces)
        assert server.process is not None
        os.killpg(server.process.pid, signal.SIGTERM)
        rest = list(pieces)
    assert rest[-1] == "[DONE]"
    assert json.loads(rest[-2])["usage"]["completion_tokens"] == 200
    assert server.process.wait(60) == 0


def test_engine_killed_in_the_middle_of_a_stream(vllama_server: Make, tiny_cache: Path) -> None:
    server = vllama_server(tiny_cache)
    with client(server) as http:
        with stream(http, TINY, 400) as pieces:
            next(pieces)
            os.kill(pid_of(http, TINY), signal.SIGKILL)
            rest = list(pieces)
        error = error_in(json.loads(rest[-1]))
        assert error["code"] == "engine_lost"
        assert TINY in error["message"]
        # A request that crosses the death itself may still be told of it.
        assert wait_until(lambda: http.get("/control/ps").json()["instances"][0]["phase"] == "stopped", 60)
        assert http.post("/v1/chat/completions", json=chat(TINY, max_tokens=4)).status_code == 200


def test_model_with_a_broken_config_says_what_is_wrong_and_blocks_no_other(
    vllama_server: Make, demo_cache: Path, tmp_path: Path
) -> None:
    hub = tmp_path / "hub"
    shutil.copytree(demo_cache, hub, symlinks=True, ignore=shutil.ignore_patterns("*MiniLM*"))
    broken = hub / "models--broken--chat"
    shutil.copytree(next(hub.glob("models--HuggingFaceTB--*")), broken, symlinks=True)
    config = next(broken.glob("snapshots/*/config.json"))
    text = config.read_text(encoding="utf-8")
    config.unlink()
    config.write_text(text.replace('"num_hidden_layers": ', '"num_hidden_layers": -'), encoding="utf-8")
    server = vllama_server(hub)
    with client(server) as http:
        failed = http.post("/v1/chat/completions", json=chat("broken/chat"))
        assert failed.status_code == 502
        error = error_of(failed)
        assert error["code"] == "start_failed"
        assert "broken/chat" in error["message"]
        assert len(error["message"].splitlines()) > 3  # the engine log's last lines
        answer = http.post("/v1/chat/completions", json=chat(CHAT, max_tokens=16))
        assert "Paris" in answer.json()["choices"][0]["message"]["content"]
