"""The data path over a real server and fake engines: what goes through, and that it goes through unchanged."""

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.api.caches import CHAT, EMBED, RERANK
from tests.api.rig import Rig, chat_body, error_of
from tests.api.spellings import SPELLINGS
from tests.api.test_endpoints import raw

PARIS = "The capital of France is Paris."


def test_every_inference_route_reaches_its_engine_through_the_openai_client(rig: Rig):
    import openai  # seconds, which a run that leaves this test out does not spend

    with (
        httpx.Client(trust_env=False) as http,
        openai.OpenAI(
            base_url=f"{rig.server.url}/v1", api_key="none", http_client=http, max_retries=0
        ) as client,
    ):
        question = [{"role": "user", "content": "What is the capital of France?"}]
        said = client.chat.completions.create(model=CHAT, messages=question)
        assert said.choices[0].message.content == PARIS
        parts = client.chat.completions.create(model=CHAT, messages=question, stream=True)
        assert "".join(part.choices[0].delta.content or "" for part in parts) == PARIS
        completed = client.completions.create(model=CHAT, prompt="The capital of France", max_tokens=3)
        assert completed.choices[0].text == "The capital of"
        vectors = client.embeddings.create(model=EMBED, input=["a cat", "the cat"]).data
        assert [len(vector.embedding) for vector in vectors] == [32, 32]
        assert {card.id for card in client.models.list()} == {CHAT, EMBED, RERANK}
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="tiny/none", messages=question)
        assert caught.value.code == "model_not_found"

    for path in ("/v1/rerank", "/rerank"):
        ranked = rig.http.post(path, json={"model": RERANK, "query": "cat", "documents": ["a dog", "a cat"]})
        assert [result["index"] for result in ranked.raise_for_status().json()["results"]] == [1, 0]
    for path in ("/v1/score", "/score"):
        scored = rig.http.post(path, json={"model": RERANK, "text_1": "cat", "text_2": ["a cat"]})
        assert len(scored.raise_for_status().json()["data"]) == 1


def test_an_answer_says_how_its_engine_came_to_be_awake(rig: Rig):
    cold = rig.chat(CHAT)
    assert (cold.status_code, cold.headers["x-vllama-state"]) == (200, "cold")
    assert float(cold.headers["x-vllama-wait-ms"]) > 0
    warm = rig.chat(CHAT, headers={"X-Request-Id": "mine"})
    assert (warm.headers["x-vllama-state"], warm.headers["x-request-id"]) == ("warm", "mine")
    assert rig.command("sleep", CHAT).json()["phase"] == "asleep"
    woken = rig.chat(CHAT)
    assert woken.headers["x-vllama-state"] == "wake"
    texts = {answer.json()["choices"][0]["message"]["content"] for answer in (cold, warm, woken)}
    assert texts == {PARIS}
    assert len(warm.headers.get_list("date")) == 1
    assert "server" not in warm.headers


def test_the_engines_own_refusals_come_through_as_they_are(rig: Rig):
    absent = rig.http.post("/classify", json={"model": EMBED, "input": "x"})
    assert (absent.status_code, absent.json()) == (404, {"detail": "Not Found"})
    assert absent.headers["x-vllama-state"] == "cold"
    wrong = rig.http.post("/v1/chat/completions", json={"model": CHAT, "stream": True})
    assert wrong.status_code == 400
    assert wrong.headers["content-type"] == "application/json"
    assert wrong.json()["error"]["type"] == "BadRequestError"


def test_a_stream_is_passed_on_as_it_comes(rig: Rig):
    with rig.stream(CHAT, gate="slow") as (answer, lines):
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert json.loads(next(lines))["choices"][0]["delta"]["role"] == "assistant"
        assert json.loads(next(lines))["choices"][0]["delta"]["content"] == "The"
        rig.waits_at(CHAT, "slow")  # the rest is not even made yet
        assert rig.view(CHAT)["in_flight"] == 1
        rig.let(CHAT, "slow")
        rest = list(lines)
    assert rest[-1] == "[DONE]"
    assert "".join(json.loads(part)["choices"][0]["delta"]["content"] for part in rest[:-1]) == PARIS[3:]
    rig.until(CHAT, in_flight=0, phase="awake")


def test_twenty_first_requests_at_once_are_one_start(rig: Rig):
    with ThreadPoolExecutor(20) as pool:
        answers = list(
            pool.map(
                lambda _: httpx.post(
                    f"{rig.server.url}/v1/chat/completions", json=chat_body(CHAT), timeout=60, trust_env=False
                ),
                range(20),
            )
        )
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["choices"][0]["message"]["content"] for answer in answers} == {PARIS}
    assert rig.kinds(CHAT).count("EngineSpawned") == 1
    rig.until(CHAT, in_flight=0, waiting=0)


def test_development_endpoints_stay_out_of_reach_while_the_engine_is_awake(rig: Rig):
    rig.chat(CHAT).raise_for_status()
    before = rig.stats(CHAT)
    for target in SPELLINGS:
        status = int(raw(rig.server, "POST", target).split()[1])
        assert (target, status) in [(target, code) for code in (400, 404, 405)]
    assert rig.stats(CHAT) == before
    assert rig.view(CHAT)["phase"] == "awake"


def test_a_caller_may_bound_its_wait(make_rig):
    rig = make_rig("hang_at_start")
    late = rig.chat(CHAT, headers={"X-Vllama-Wait-S": "0.2"})
    assert (late.status_code, error_of(late)["code"]) == (504, "wait_timeout")
    assert int(late.headers["retry-after"]) >= 1
    assert CHAT in error_of(late)["message"]
    rig.until(CHAT, waiting=0)
    rig.faults()
    assert rig.chat(CHAT).status_code == 200


def test_a_model_that_cannot_start_says_why_and_blocks_no_other(make_rig):
    rig = make_rig(f"{CHAT}:die_at_start")
    failed = rig.chat(CHAT)
    assert (failed.status_code, error_of(failed)["code"]) == (502, "start_failed")
    assert CHAT in error_of(failed)["message"]
    assert "Engine core initialization failed" in error_of(failed)["message"]
    embedded = rig.http.post("/v1/embeddings", json={"model": EMBED, "input": "x"})
    assert embedded.status_code == 200
    states = {card["id"]: card["status"]["value"] for card in rig.http.get("/v1/models").json()["data"]}
    assert states[EMBED] == "loaded"
    assert states[CHAT] in ("unloaded", "failed")
