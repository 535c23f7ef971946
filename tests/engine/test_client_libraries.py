"""Ollama's, OpenAI's and Anthropic's clients and LiteLLM make their calls against real engines: what is answered is not judged,
only that each understands it. One server for all of them. Images, tools and thinking are in tests/api/test_clients.py.

Each is imported where it is used: they take seconds, also where a run collects this file and leaves its tests out."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import CHAT
from models import EMBEDDING as EMBED
from serving import Vllama

QUESTION: Any = {"role": "user", "content": "What is the capital of France?"}
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
BOUND_S = 400.0
LITELLM = Path(__file__).with_name("litellm_calls.py")


def test_every_client_makes_every_call(vllama_server: Callable[..., Vllama], demo_cache: Path) -> None:
    server = vllama_server(demo_cache)
    _ollama(server)
    _openai(server)
    _anthropic(server)
    _litellm(server)


def _ollama(server: Vllama) -> None:
    import ollama

    few = {
        "num_predict": 4,
        "temperature": 0,
        "seed": 1,
        "top_k": 40,
        "repeat_penalty": 1.1,
        "stop": ["never"],
    }
    with ollama.Client(host=server.url, timeout=BOUND_S) as client:
        assert client.generate(CHAT, keep_alive="1h").done_reason == "load"
        [running] = client.ps().models
        assert running.size
        assert running.size > 2**20
        assert running.expires_at is not None
        assert {model.model for model in client.list().models} == {f"{CHAT}:latest", f"{EMBED}:latest"}
        shown = client.show(CHAT)
        assert shown.capabilities == ["completion"]
        assert shown.template
        assert "im_start" in shown.template
        whole = client.chat(f"{CHAT}:latest", [QUESTION], options=few)
        assert whole.message.content
        assert whole.prompt_eval_count
        assert whole.eval_count == 4
        assert whole.total_duration
        assert whole.eval_duration
        assert whole.prompt_eval_duration
        assert whole.done_reason == "length"
        parts = list(client.chat(CHAT, [QUESTION], options=few, stream=True, logprobs=True, top_logprobs=2))
        assert "".join(part.message.content or "" for part in parts) == whole.message.content
        shares = [one for part in parts for one in part.logprobs or ()]
        assert len(shares) == 4
        assert all(len(one.top_logprobs or ()) == 2 for one in shares)
        shaped = client.chat(CHAT, [QUESTION], format=SCHEMA, options={"temperature": 0, "num_predict": 32})
        assert set(json.loads(shaped.message.content or "")) == {"ok"}
        assert client.generate(CHAT, "Hello", system="Be brief.", options=few).response
        json.loads(
            client.generate(
                CHAT, "A JSON object:", format="json", options={"num_predict": 200, "temperature": 0}
            ).response
        )
        raw = client.generate(CHAT, "Once upon a time", raw=True, options=few, logprobs=True)
        assert raw.response
        assert raw.logprobs
        assert len(raw.logprobs) == 4
        many = client.embed(EMBED, ["one", "two words"])
        assert [len(vector) for vector in many.embeddings] == [384, 384]
        assert many.prompt_eval_count
        one = client.embeddings(EMBED, "one").embedding
        assert one == pytest.approx(list(many.embeddings[0]), abs=1e-3)
        client.copy(CHAT, "small")
        assert client.chat("small", [QUESTION], options=few).message.content == whole.message.content
        client.delete("small")
        assert client.embed(EMBED, "x", keep_alive=0).embeddings
        assert client.generate(EMBED, keep_alive=0).done_reason == "unload"


def _openai(server: Vllama) -> None:
    import openai

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=BOUND_S, max_retries=0) as client:
        assert {model.id for model in client.models.list()} >= {CHAT, EMBED}
        assert client.models.retrieve(CHAT).id == CHAT
        few: Any = {"model": CHAT, "max_tokens": 8, "temperature": 0}
        whole = client.chat.completions.create(**few, messages=[QUESTION], extra_body={"keep_alive": "1h"})
        parts = client.chat.completions.create(
            **few, messages=[QUESTION], stream=True, extra_body={"ttl": 3600}
        )
        text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        assert text == whole.choices[0].message.content
        with client.chat.completions.stream(**few, messages=[QUESTION]) as stream:
            assert stream.get_final_completion().choices[0].message.content == text
        assert client.completions.create(**few, prompt="Once").choices[0].text
        assert [part.choices[0].text for part in client.completions.create(**few, prompt="Once", stream=True)]
        assert len(client.embeddings.create(model=EMBED, input=["a", "b"]).data) == 2
        response = client.responses.create(model=CHAT, input="Hello", max_output_tokens=8)
        assert response.output
        kinds = [
            event.type
            for event in client.responses.create(model=CHAT, input="Hi", max_output_tokens=8, stream=True)
        ]
        assert kinds[0] == "response.created"


def _anthropic(server: Vllama) -> None:
    import anthropic

    with anthropic.Anthropic(base_url=server.url, api_key="none", timeout=BOUND_S, max_retries=0) as client:
        ask: Any = {"model": CHAT, "messages": [QUESTION]}
        whole = client.messages.create(**ask, max_tokens=8, extra_body={"keep_alive": "1h", "temperature": 0})
        assert 0 < whole.usage.output_tokens <= 8
        with client.messages.stream(**ask, max_tokens=8, system="Be brief.") as stream:
            assert "".join(stream.text_stream)
        assert client.messages.count_tokens(**ask).input_tokens > 0


def _litellm(server: Vllama) -> None:
    done = subprocess.run(
        [sys.executable, str(LITELLM), server.url, CHAT, EMBED],
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("openai embedding") == found.pop("ollama embedding") == [384, 384]
    assert {name for name, text in found.items() if not text} == set()
    assert len(found) == 11
