"""The fake engine is a verified fake: the same checks hold for it and for the real vLLM.

All of them run over one host in one loop, so that the real one loads its zygote once.
"""

import asyncio
import base64
import json
import struct
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.caches import make_cache
from tests.host.local_helpers import FAKE
from vllama.api.metrics.text import engines
from vllama.config import ModelConfig, VllamaConfig
from vllama.host.command import launch_spec
from vllama.host.engine import Engine
from vllama.host.host import ModelFiles
from vllama.host.local import LocalHost

BOUND_S = 240.0
PROMPT = {"prompt": "The cat sat on the", "max_tokens": 3, "temperature": 0}
MESSAGES = {"messages": [{"role": "user", "content": "the cat"}], "max_tokens": 6, "temperature": 0}
ENDLESS = {**PROMPT, "max_tokens": 400, "ignore_eos": True, "stream": True}


class Subject:
    """One engine that answers, and an HTTP client at its door."""

    def __init__(self, engine: Engine, http: httpx.AsyncClient) -> None:
        self.engine = engine
        self.model = engine.served_name
        self.http = http

    async def post(self, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        return await self.http.post(path, json={"model": self.model, **body} if body is not None else None)

    async def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = await self.post(path, body)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        answer: dict[str, Any] = response.json()
        return answer

    async def is_sleeping(self) -> bool:
        return (await self.http.get("/is_sleeping")).json() == {"is_sleeping": True}

    async def stream(self, path: str, body: dict[str, Any]) -> list[str]:
        """The data of each server-sent event."""
        async with self.http.stream("POST", path, json={"model": self.model, **body}) as response:
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            lines = [line async for line in response.aiter_lines() if line]
        assert all(line.startswith("data: ") for line in lines)
        return [line.removeprefix("data: ") for line in lines]


async def check_the_doors(subject: Subject) -> None:
    health = await subject.http.get("/health")
    assert (health.status_code, health.content) == (200, b"")
    listed = (await subject.http.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [card["id"] for card in listed["data"]] == [subject.model]
    assert (await subject.http.get("/nowhere")).status_code == 404
    assert not await subject.is_sleeping()
    assert (await subject.http.post("/reset_prefix_cache")).status_code == 200


async def check_figures(subject: Subject) -> None:
    """What /metrics passes on: the kinds and labels that it and the dashboard rely on, and no line that is not understood."""
    answer = await subject.http.get("/metrics", headers={"accept": "text/plain;version=0.0.4"})
    assert answer.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in engines(answer.text, subject.model)}
    kinds = {
        "vllm:num_requests_running": "gauge",
        "vllm:request_success_total": "counter",
        "vllm:time_to_first_token_seconds": "histogram",
    }
    assert {name: families[name].kind for name in kinds} == kinds
    lines = [line for line in answer.text.splitlines() if line and not line.startswith("#")]
    kept = [line for line in lines if not line.partition("{")[0].partition(" ")[0].endswith("_created")]
    assert sum(len(family.lines) for family in families.values()) == len(kept) > 5
    for line in families["vllm:num_requests_running"].lines:
        assert line.startswith(f'vllm:num_requests_running{{model="{subject.model}",')
        assert f'model_name="{subject.model}"' in line
        assert 'engine="0"' in line


async def check_errors(subject: Subject, path: str, body: dict[str, Any]) -> None:
    assert (await subject.http.get(path)).status_code == 405
    unknown = await subject.post(path, {**body, "model": "no/such"})
    assert unknown.status_code == 404
    error = unknown.json()["error"]
    assert error["type"] == "NotFoundError"
    assert error["code"] == 404
    assert "no/such" in error["message"]
    assert (await subject.post(path, {})).status_code == 400
    garbled = await subject.http.post(path, content=b"{", headers={"content-type": "application/json"})
    assert garbled.status_code == 400


async def check_completions(subject: Subject) -> None:
    first = await subject.answer("/v1/completions", {**PROMPT, "logprobs": 5})
    (choice,) = first["choices"]
    assert (first["object"], choice["finish_reason"]) == ("text_completion", "length")
    assert first["usage"]["completion_tokens"] == 3
    shown = choice["logprobs"]
    assert len(shown["tokens"]) == len(shown["token_logprobs"]) == len(shown["top_logprobs"]) == 3
    assert shown["tokens"][0] in shown["top_logprobs"][0]
    assert all(value <= 0 for value in shown["token_logprobs"])
    again = await subject.answer("/v1/completions", PROMPT)
    assert again["choices"][0]["text"] == choice["text"]
    assert again["choices"][0]["logprobs"] is None
    assert (await subject.post("/v1/embeddings", {"input": "x"})).status_code == 404


async def check_chat_and_streams(subject: Subject) -> None:
    whole = await subject.answer("/v1/chat/completions", MESSAGES)
    assert whole["object"] == "chat.completion"
    message = whole["choices"][0]["message"]
    assert message["role"] == "assistant"
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, done = await subject.stream("/v1/chat/completions", {**MESSAGES, **options})
    assert done == "[DONE]"
    events = [json.loads(chunk) for chunk in chunks]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert events[-1]["choices"] == []
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert events[-1]["usage"][name] == whole["usage"][name]
    deltas = [choice for event in events for choice in event["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in deltas) == message["content"]
    assert [c["finish_reason"] for c in deltas if c["finish_reason"]] == [
        whole["choices"][0]["finish_reason"]
    ]


async def check_a_hang_up_ends_the_generation(subject: Subject) -> None:
    async with subject.http.stream(
        "POST", "/v1/completions", json={"model": subject.model, **ENDLESS}
    ) as response:
        async for _ in response.aiter_bytes():
            break
    async with asyncio.timeout(BOUND_S):
        while True:
            text = (await subject.http.get("/metrics")).text
            running = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running")]
            if running and all(line.endswith(" 0.0") for line in running):
                return
            await asyncio.sleep(0.02)


async def check_sleep(subject: Subject, path: str, body: dict[str, Any]) -> None:
    before = _essence(await subject.answer(path, body))
    # The level is a query parameter; a body is ignored and means level 1.
    slept = await subject.http.post("/sleep", json={"level": 2})
    assert slept.json() == {"status": "sleeping", "level": 1}
    assert await subject.is_sleeping()
    assert (await subject.http.get("/health")).status_code == 200
    # A request waits for the wake; that it does is why vllama admits none.
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(subject.answer(path, body))
        assert await subject.is_sleeping()
        assert await subject.is_sleeping()
        assert not waiting.done()
        woken = await subject.http.post("/wake_up")
        assert (woken.status_code, woken.json()["status"]) == (200, "awake")
    assert _essence(waiting.result()) == before
    assert (await subject.http.post("/sleep?level=2")).json() == {"status": "sleeping", "level": 2}
    weights = await subject.http.post("/wake_up?tags=weights")
    assert weights.json() == {"status": "sleeping", "tags": ["weights"]}
    assert (await subject.http.post("/collective_rpc", json={"method": "reload_weights"})).status_code == 200
    # A tag that is not asleep makes the whole call void.
    void = await subject.http.post("/wake_up?tags=weights&tags=kv_cache")
    assert (void.status_code, void.json()["status"]) == (200, "sleeping")
    assert await subject.is_sleeping()
    assert (await subject.http.post("/wake_up?tags=kv_cache")).json()["status"] == "awake"
    assert not await subject.is_sleeping()
    assert _essence(await subject.answer(path, body)) == before
    assert (await subject.http.post("/sleep?level=9")).status_code in (400, 422)
    assert not await subject.is_sleeping()


def _essence(answer: dict[str, Any]) -> Any:
    """What of an answer must be the same each time: text, vectors and scores, rounded."""
    if "choices" in answer:
        return answer["choices"][0].get("text") or answer["choices"][0].get("message", {}).get("content")
    if "results" in answer:
        return [(result["index"], round(result["relevance_score"], 2)) for result in answer["results"]]
    return [[round(value, 2) for value in item["embedding"]] for item in answer["data"]]


async def check_embeddings(subject: Subject) -> None:
    texts = ["the cat", "a dog"]
    plain = await subject.answer("/v1/embeddings", {"input": texts})
    assert [(item["index"], item["object"]) for item in plain["data"]] == [(0, "embedding"), (1, "embedding")]
    assert plain["usage"]["total_tokens"] > 0
    coded = await subject.answer("/v1/embeddings", {"input": texts, "encoding_format": "base64"})
    for item, same in zip(plain["data"], coded["data"], strict=True):
        raw = base64.b64decode(same["embedding"])
        numbers = struct.unpack(f"<{len(raw) // 4}f", raw)
        assert list(numbers) == pytest.approx(item["embedding"], abs=1e-3)
    assert (await subject.post("/v1/completions", PROMPT)).status_code == 404


async def check_scores(subject: Subject, *, classifier: bool) -> None:
    pair = {"text_1": "the cat", "text_2": ["a dog", "the cat sat"]}
    scores = await subject.answer("/score", pair)
    assert [(item["index"], item["object"]) for item in scores["data"]] == [(0, "score"), (1, "score")]
    named = await subject.answer("/v1/score", {"queries": "the cat", "documents": ["a dog", "the cat sat"]})
    assert [round(d["score"], 2) for d in named["data"]] == [round(d["score"], 2) for d in scores["data"]]
    documents = {"query": "the cat", "documents": ["a dog", "the cat sat", "the sun"]}
    for path in ("/rerank", "/v1/rerank"):
        ranked = await subject.answer(path, {**documents, "top_n": 2})
        assert len(ranked["results"]) == 2
        values = [result["relevance_score"] for result in ranked["results"]]
        assert values == sorted(values, reverse=True)
        for result in ranked["results"]:
            assert result["document"]["text"] == documents["documents"][result["index"]]
    assert (await subject.post("/classify", {"input": "x"})).status_code == (200 if classifier else 404)


async def check(subject: Subject, kind: str) -> None:
    await check_the_doors(subject)
    match kind:
        case "chat":
            await check_completions(subject)
            await check_figures(subject)
            await check_chat_and_streams(subject)
            await check_errors(subject, "/v1/completions", PROMPT)
            await check_errors(subject, "/v1/chat/completions", MESSAGES)
            await check_a_hang_up_ends_the_generation(subject)
            await check_sleep(subject, "/v1/completions", PROMPT)
        case "embedding":
            await check_embeddings(subject)
            await check_scores(subject, classifier=False)
            await check_errors(subject, "/v1/embeddings", {"input": "x"})
            await check_sleep(subject, "/v1/embeddings", {"input": "the cat"})
        case "rerank":
            await check_scores(subject, classifier=True)
            await check_sleep(subject, "/rerank", {"query": "the cat", "documents": ["a dog", "the cat"]})


async def contract(config: VllamaConfig) -> None:
    host = LocalHost(config)
    await host.open()
    try:
        models = await host.models({})
        assert {files.kind for files in models} == {"chat", "embedding", "rerank"}
        for files in models:
            await _one(host, config, files)
    finally:
        await host.close()


async def _one(host: LocalHost, config: VllamaConfig, files: ModelFiles) -> None:
    devices = (await host.describe()).devices
    spec = launch_spec(config, ModelConfig(), files, devices, 2**31, files.id)
    proc = await host.launch(spec)
    engine = Engine(host, proc.launch_id, files)
    await engine.ready(BOUND_S, BOUND_S)
    await engine.warm_up(BOUND_S)
    base = f"http://127.0.0.1:{proc.port}"
    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=BOUND_S) as http:
        await check(Subject(engine, http), files.kind)
    await host.kill(proc.launch_id, 10)
    assert (await host.wait_ready(proc.launch_id, BOUND_S)).state == "exited"


def test_the_fake_keeps_the_contract(tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "hub")
    settings = {"transformers_cache": cache, "config_dir": tmp_path, "engine_entry": str(FAKE)}
    asyncio.run(contract(VllamaConfig.model_validate(settings)))


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_the_real_engine_keeps_the_contract(tmp_path: Path, tiny_cache: Path) -> None:
    settings = {"transformers_cache": tiny_cache, "config_dir": tmp_path, "engine_start": "fork"}
    asyncio.run(contract(VllamaConfig.model_validate(settings)))
