"""A client that leaves in the middle of a long stream: the real vLLM stops generating, on both ways of the data path."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from models import CHAT
from serving import Vllama, wait_until

from tests.api.front_rig import WAYS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

BOUND_S = 120.0
TOKENS = 6000  # minutes, on a CPU
SHORT = 8


class Engine:
    """What the engine says of itself."""

    def __init__(self, http: httpx.Client) -> None:
        (view,) = [each for each in http.get("/control/ps").json()["instances"] if each["model"] == CHAT]
        self._url = f"http://127.0.0.1:{view['port']}/metrics"

    def figure(self, name: str) -> int:
        text = httpx.get(self._url, trust_env=False, timeout=BOUND_S).raise_for_status().text
        values = re.findall(rf"^vllm:{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.MULTILINE)
        assert values, f"vLLM has no figure {name}"
        return int(sum(map(float, values)))


def chat(tokens: int, **more: object) -> dict[str, object]:
    question = {"role": "user", "content": "Tell a very long story."}
    return {"model": CHAT, "messages": [question], "max_tokens": tokens, "ignore_eos": True, **more}


def pieces(answer: httpx.Response) -> Iterator[dict]:
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_a_hang_up_ends_the_generation_in_the_engine(vllama_server, demo_cache: Path) -> None:
    server: Vllama = vllama_server(demo_cache)
    with httpx.Client(base_url=server.url, trust_env=False, timeout=BOUND_S) as http:
        http.post("/v1/chat/completions", json=chat(SHORT)).raise_for_status()
        engine = Engine(http)
        for way in WAYS.values():
            headers = dict(line.split(": ") for line in way)
            before = engine.figure("generation_tokens_total")
            with http.stream(
                "POST", "/v1/chat/completions", json=chat(TOKENS, stream=True), headers=headers
            ) as answer:
                assert answer.status_code == 200
                coming = pieces(answer)
                for _ in range(5):
                    next(coming)
                assert engine.figure("num_requests_running") == 1
            assert wait_until(lambda: engine.figure("num_requests_running") == 0, BOUND_S)
            stopped = engine.figure("generation_tokens_total")
            assert stopped - before < TOKENS / 2
            # All that is generated from here on is somebody else's.
            http.post("/v1/chat/completions", json=chat(SHORT), headers=headers).raise_for_status()
            assert engine.figure("generation_tokens_total") == stopped + SHORT
            assert wait_until(
                lambda: http.get("/control/ps").json()["instances"][0]["in_flight"] == 0, BOUND_S
            )
