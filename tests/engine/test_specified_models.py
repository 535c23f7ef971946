"""The specification's three test models, under their own names and architectures (tiny, random weights), each through its
endpoints on the real engine, and again after each of the three levels of sleep."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hf_layout import model_folder
from serving import Vllama

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

CHAT, EMBEDDING, RERANK = "Qwen/Qwen3-0.6B", "BAAI/bge-m3", "tomaarsen/Qwen3-Reranker-0.6B-seq-cls"
TINY = {CHAT: "tiny/qwen3", EMBEDDING: "tiny/bge-m3", RERANK: "tiny/qwen3-reranker"}
BOUND_S = 240.0

MESSAGES = [{"role": "user", "content": "the cat sat"}]
GREEDY = {"temperature": 0, "max_tokens": 8}
PAIR = {"query": "cat", "documents": ["the cat sat", "of a dog"]}
TEXTS = {"text_1": "cat", "text_2": ["the cat sat", "of a dog"]}
# Each model's endpoints: path, body, and where in the answer that stands which must not change.
ENDPOINTS: dict[str, tuple[tuple[str, dict[str, Any], str], ...]] = {
    CHAT: (
        ("/v1/chat/completions", {"messages": MESSAGES, **GREEDY}, "choices"),
        ("/v1/completions", {"prompt": "the cat sat", **GREEDY}, "choices"),
    ),
    EMBEDDING: (("/v1/embeddings", {"input": ["the cat sat", "on the mat"]}, "data"),),
    RERANK: (
        ("/v1/rerank", PAIR, "results"),
        ("/rerank", PAIR, "results"),
        ("/v1/score", TEXTS, "data"),
        ("/score", TEXTS, "data"),
    ),
}


@pytest.fixture
def hub(tiny_cache: Path, tmp_path: Path) -> Path:
    """The tiny models' cache, each under the name of the model whose architecture it has."""
    cache = tmp_path / "hub"
    for name, tiny in TINY.items():
        shutil.copytree(model_folder(tiny_cache, tiny), model_folder(cache, name), symlinks=True)
    return cache


def answers(http: httpx.Client, model: str) -> list[Any]:
    """What each of the model's endpoints answers, less what is new each time."""
    said = []
    for path, body, part in ENDPOINTS[model]:
        answer = http.post(path, json={"model": model, **body})
        assert answer.status_code == 200, f"{model} {path}: {answer.text}"
        found = answer.json()
        assert found["model"] == model
        assert len(found[part]) == (1 if part == "choices" else 2)
        said.append(found[part])
    return said


# Levels told one after the other, and the phase that they end in: from level 1 there is no way to level 2 in place.
SLEEPS = (((1,), "asleep"), ((2,), "asleep"), ((1, 2), "stopped"), ((3,), "stopped"))


def sleep(http: httpx.Client, model: str, levels: tuple[int, ...]) -> str:
    """The phase reached."""
    phase = ""
    for level in levels:
        told = http.post("/control/sleep", json={"model": model, "level": level})
        assert told.status_code == 200, told.text
        phase = told.json()["phase"]
    return phase


def test_each_endpoint_answers_the_same_after_every_level_of_sleep(
    vllama_server: Callable[..., Vllama], hub: Path
) -> None:
    server = vllama_server(hub)
    with httpx.Client(base_url=server.url, trust_env=False, timeout=BOUND_S) as http:
        listed = {card["id"] for card in http.get("/v1/models").json()["data"]}
        assert listed == set(TINY)
        for model in ENDPOINTS:
            before = answers(http, model)
            for levels, phase in SLEEPS:
                assert sleep(http, model, levels) == phase
                assert answers(http, model) == before
