"""The Python clients that people have, each making the calls that it has, unchanged, over fake engines: tools, images, thinking,
structured output and a pull among them. What real engines answer is in tests/engine/test_client_libraries.py.

Each client is imported by its test: the three take seconds, also where a run collects this file and leaves its tests out."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.caches import CHAT, EMBED, make_cache
from tests.api.rig import Rig
from tests.fakes.fake_hub import FakeHub, model_files

if TYPE_CHECKING:
    import ollama

QUESTION = {"role": "user", "content": "What is the capital of France?"}
SAID = "The capital of France is Paris."
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
SPECIAL = """tiny/chat:
  extra_args: {enable-auto-tool-choice: true, tool-call-parser: hermes, reasoning-parser: qwen3}
"""
NEW = "tiny/new"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as found:
        found.put(NEW, model_files())
        yield found


@pytest.fixture
def server(vllama_server: Callable[..., Any], hub: FakeHub, tmp_path: Path) -> Iterator[Rig]:
    """A server whose chat model thinks and calls tools, with a cache that it may change."""
    env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    rig = Rig(vllama_server(make_cache(tmp_path / "hub"), fake=True, env=env), tmp_path / "faults")
    (rig.server.config_dir / "models.yaml").write_text(SPECIAL)
    rig.http.post("/control/reload", json={}).raise_for_status()
    yield rig
    rig.close()


def weather(city: str) -> str:
    """The weather of a city.

    Args:
      city: its name

    Returns:
      str: the weather
    """
    return f"rain in {city}"


def last(rig: Rig) -> dict[str, Any]:
    body: dict[str, Any] = rig.engine(CHAT, "GET", "/fake/last").json()
    return body


def test_ollamas_own_client(server: Rig) -> None:
    import ollama

    with ollama.Client(host=server.server.url) as client:
        _ollama_chats(client, server)
        _ollama_thinks_and_calls(client, server)
        _ollama_manages(client)


def _ollama_chats(client: "ollama.Client", rig: Rig) -> None:
    whole = client.chat(CHAT, [QUESTION], think=False)
    assert (whole.message.content, whole.done_reason, whole.message.thinking) == (SAID, "stop", None)
    assert whole.eval_count == 6
    assert whole.total_duration
    assert whole.total_duration > 0
    parts = list(client.chat(f"{CHAT}:latest", [QUESTION], think=False, stream=True, keep_alive="10m"))
    assert "".join(part.message.content or "" for part in parts) == SAID
    assert [part.done for part in parts[-2:]] == [False, True]
    assert rig.view(CHAT)["idle_after_s"] == 600
    said = client.generate(
        CHAT, "What is the capital of France?", system="Be brief.", think=False, options={"num_predict": 2}
    )
    assert (said.response, said.done_reason) == ("The capital", "length")
    assert client.generate(CHAT, "once", raw=True).response
    client.chat(CHAT, [QUESTION | {"images": [PIXEL]}], think=False)
    [image, _] = last(rig)["messages"][0]["content"]
    assert image["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"
    client.generate(CHAT, "what is it?", images=[PIXEL], think=False)
    assert last(rig)["messages"][0]["content"][0] == image
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    shaped = client.chat(CHAT, [QUESTION], format=schema, think=False)
    assert json.loads(shaped.message.content or "") == {"city": "Paris"}
    assert json.loads(client.generate(CHAT, "x", format="json", think=False).response) == {"answer": "Paris"}


def _ollama_thinks_and_calls(client: "ollama.Client", rig: Rig) -> None:
    thought = client.chat(CHAT, [QUESTION], think=True)
    assert (thought.message.thinking, thought.message.content) == ("Let me think.", "Paris.")
    parts = list(client.chat(CHAT, [QUESTION], think="high", stream=True))
    assert "".join(part.message.thinking or "" for part in parts) == "Let me think."
    assert last(rig)["reasoning_effort"] == "high"
    assert client.generate(CHAT, "x", think=True).thinking == "Let me think."
    for stream in (False, True):
        answer = client.chat(CHAT, [QUESTION], tools=[weather], think=False, stream=stream)
        parts = list(answer) if stream else [answer]
        [call] = [call for part in parts for call in part.message.tool_calls or ()]
        assert (call.function.name, dict(call.function.arguments)) == ("weather", {"city": "Paris"})
    asked = (
        parts[0].message if not stream else next(part.message for part in parts if part.message.tool_calls)
    )
    result = {"role": "tool", "content": weather("Paris"), "tool_name": "weather"}
    client.chat(CHAT, [QUESTION, asked, result], tools=[weather], think=False)
    sent = last(rig)["messages"]
    assert sent[2] == {
        "role": "tool",
        "content": "rain in Paris",
        "tool_call_id": sent[1]["tool_calls"][0]["id"],
    }


def _ollama_manages(client: "ollama.Client") -> None:
    import ollama

    assert {model.model for model in client.list().models} >= {f"{CHAT}:latest", f"{EMBED}:latest"}
    assert client.show(CHAT).capabilities == ["completion", "tools", "thinking"]
    assert [model.model for model in client.ps().models] == [f"{CHAT}:latest"]
    assert len(client.embed(EMBED, ["a", "b"]).embeddings) == 2
    assert client.embeddings(EMBED, "a").embedding == client.embed(EMBED, "a").embeddings[0]
    steps = list(client.pull(NEW, stream=True))
    assert (steps[0].status, steps[-1].status) == ("pulling manifest", "success")
    assert any(step.completed and step.completed == step.total and step.digest for step in steps)
    assert client.pull(NEW).status == "success"
    assert client.copy(NEW, "mine").status == "success"
    assert client.generate("mine", "x", raw=True).response
    with pytest.raises(ollama.ResponseError, match="has an engine") as refused:
        client.delete(NEW)
    assert refused.value.status_code == 409
    assert client.delete("mine").status == "success"
    assert client.generate(NEW, keep_alive=0).done_reason == "unload"
    with pytest.raises(ollama.ResponseError, match="not found, try pulling it first") as absent:
        client.chat("mine", [QUESTION])
    assert absent.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="there is no model"):
        list(client.pull("tiny/none", stream=True))
    for call in (lambda: client.create("x", from_=CHAT), lambda: client.push("x")):
        with pytest.raises(ollama.ResponseError, match="vllama does not serve") as unserved:
            call()
        assert unserved.value.status_code == 501


def test_ollamas_asynchronous_client(rig: Rig) -> None:
    import ollama

    async def all_of_it() -> str:
        async with ollama.AsyncClient(host=rig.server.url) as client:
            assert (await client.embed(EMBED, "a")).embeddings
            assert (await client.list()).models
            parts = await client.chat(CHAT, [QUESTION], stream=True)
            return "".join([part.message.content or "" async for part in parts])

    assert asyncio.run(all_of_it()) == SAID


def test_openais_client(server: Rig) -> None:
    import openai

    with openai.OpenAI(base_url=f"{server.server.url}/v1", api_key="none", max_retries=0) as client:
        off = {"chat_template_kwargs": {"enable_thinking": False}}
        answer = client.chat.completions.create(model=CHAT, messages=[QUESTION], extra_body=off | {"ttl": 77})
        assert answer.choices[0].message.content == SAID
        assert server.view(CHAT)["idle_after_s"] == 77
        thought = client.chat.completions.create(model=CHAT, messages=[QUESTION])
        assert thought.choices[0].message.reasoning == "Let me think."
        parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
        tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
        called = client.chat.completions.create(model=CHAT, messages=[QUESTION], tools=[tool], extra_body=off)
        [call] = called.choices[0].message.tool_calls or ()
        assert json.loads(call.function.arguments) == {"city": "Paris"}
        url = {"url": f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"}
        parts = [{"type": "image_url", "image_url": url}, {"type": "text", "text": "what is it?"}]
        client.chat.completions.create(
            model=CHAT, messages=[{"role": "user", "content": parts}], extra_body=off
        )
        assert last(server)["messages"][0]["content"] == parts
        with client.chat.completions.stream(model=CHAT, messages=[QUESTION], extra_body=off) as stream:
            assert stream.get_final_completion().choices[0].message.content == SAID


def test_anthropics_client_reaches_its_route(rig: Rig) -> None:
    """vLLM serves it; the fake tells back what came."""
    import anthropic

    with anthropic.Anthropic(base_url=rig.server.url, api_key="none", max_retries=0) as client:
        answer = client.messages.with_raw_response.create(
            model=CHAT, max_tokens=8, messages=[QUESTION], extra_body={"keep_alive": "1h"}
        )
        seen = json.loads(answer.text())
        assert (seen["target"], json.loads(seen["body"])["max_tokens"]) == ("/v1/messages", 8)
        assert "keep_alive" not in seen["body"]
        assert "x-api-key" not in seen["headers"]
        assert rig.view(CHAT)["idle_after_s"] == 3600
