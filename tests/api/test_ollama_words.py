"""Ollama's words in vLLM's and back, without a server: options, messages, events, durations, names."""

import json
from typing import Any

import pytest

from vllama.api.ollama.answer import Answer, as_message, as_response
from vllama.api.ollama.cards import quantization
from vllama.api.ollama.clock import Clock, stamp
from vllama.api.ollama.errors import BUSY, worded
from vllama.api.ollama.fold import Fold
from vllama.api.ollama.messages import messages, tools
from vllama.api.ollama.names import at_hub, tagged, untagged
from vllama.api.ollama.options import form, logprobs, sampling, thinking
from vllama.errors import BadRequest


def test_options_are_sampling_parameters() -> None:
    given = {
        "seed": 7, "temperature": 0, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "repeat_penalty": 1.1, "presence_penalty": 0.5,
        "frequency_penalty": 1, "stop": "\n", "num_predict": 64,
    }  # fmt: skip
    assert sampling(given) == {
        "seed": 7, "temperature": 0, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.1,
        "presence_penalty": 0.5, "frequency_penalty": 1, "stop": ["\n"], "max_tokens": 64,
    }  # fmt: skip


def test_how_llama_cpp_runs_a_model_is_passed_over() -> None:
    assert sampling({"num_ctx": 8192, "num_gpu": 99, "use_mmap": True, "repeat_last_n": 64, "what": 1}) == {}
    assert sampling({"num_predict": -1, "mirostat": 0, "tfs_z": 1.0, "typical_p": 1, "seed": None}) == {}
    assert sampling(None) == {}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mirostat": 2}, "mirostat"),
        ({"tfs_z": 0.5}, "tfs_z"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": 1.5}, "top_k"),
        ({"num_predict": True}, "num_predict"),
        ({"stop": [1]}, "stop"),
        ([], "options"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(options: Any, named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        sampling(options)


def test_a_format_is_a_response_format() -> None:
    assert form(None) == form("") == {}
    assert form("json") == {"response_format": {"type": "json_object"}}
    assert form({"type": "object"})["response_format"]["json_schema"]["schema"] == {"type": "object"}
    with pytest.raises(BadRequest, match="expected"):
        form("xml")


def test_think_switches_the_template_or_sets_the_effort() -> None:
    assert thinking(None) == {}
    assert thinking(value := False) == {"chat_template_kwargs": {"enable_thinking": value, "thinking": value}}
    assert thinking("high") == {"reasoning_effort": "high"}
    with pytest.raises(BadRequest, match="must be true, false"):
        thinking("hard")


def test_logprobs_are_bounded() -> None:
    assert logprobs(None, None) == {}
    assert logprobs(True, None) == {"logprobs": True, "top_logprobs": 0}
    assert logprobs(None, 3) == {"logprobs": True, "top_logprobs": 3}
    with pytest.raises(BadRequest, match="between 0 and 20"):
        logprobs(True, 21)


def test_images_are_parts_of_a_message() -> None:
    [message] = messages([{"role": "user", "content": "what is it?", "images": ["iVBORw0KGgo=", "/9j/4AAQ"]}])
    urls = [part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"]
    assert urls == ["data:image/png;base64,iVBORw0KGgo=", "data:image/jpeg;base64,/9j/4AAQ"]
    assert message["content"][-1] == {"type": "text", "text": "what is it?"}


def test_calls_and_their_results_find_each_other() -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    other = {"id": "x", "function": {"name": "time", "arguments": {}}}
    made = messages([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call, call, other]},
        {"role": "tool", "content": "10:00", "tool_name": "time"},
        {"role": "tool", "content": "rain", "tool_name": "weather"},
        {"role": "tool", "content": "sun"},
    ])  # fmt: skip
    assert made[1]["reasoning"] == "hm"
    assert [one["id"] for one in made[1]["tool_calls"]] == ["call_1_0", "call_1_1", "x"]
    assert made[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Oslo"}'}
    assert [one["tool_call_id"] for one in made[2:]] == ["x", "call_1_0", "call_1_1"]


@pytest.mark.parametrize(
    "given",
    ["x", [1], [{"role": "boss"}], [{"role": "user", "content": 1}], [{"role": "user", "images": [1]}],
     [{"role": "user", "images": "x"}], [{"role": "assistant", "tool_calls": [{}]}]],
)  # fmt: skip
def test_messages_that_are_none_are_refused(given: Any) -> None:
    with pytest.raises(BadRequest):
        messages(given)


def test_tools_lose_what_is_null() -> None:
    function = {"name": "f", "description": None, "parameters": {"type": "object", "required": None}}
    made = tools([{"type": "function", "function": function}])
    assert made["tools"][0]["function"] == {"name": "f", "parameters": {"type": "object"}}
    assert tools([]) == {}
    with pytest.raises(BadRequest, match="tools"):
        tools([{"type": "function"}])


def events(*trees: object) -> bytes:
    return b"".join(b"data: " + json.dumps(tree).encode() + b"\n\n" for tree in trees) + b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}


def test_events_are_whole_however_the_bytes_come() -> None:
    data = events(
        chunk({"role": "assistant", "content": ""}), chunk({"reasoning": "hm"}), chunk({"content": "Pâris"}, "length"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    )  # fmt: skip
    for size in (1, 7, len(data)):
        fold, parts = Fold(), []
        for at in range(0, len(data), size):
            parts += fold.feed(data[at : at + size])
        assert [(part.text, part.thinking) for part in parts] == [("", "hm"), ("Pâris", "")]
        assert (fold.reason, fold.prompt_tokens, fold.tokens, fold.failure) == ("length", 3, 2, None)


def test_a_tool_call_is_put_together() -> None:
    fold = Fold()
    first = {"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": part}} for part in ('{"x"', ": 1}")]
    fold.feed(events(*(chunk({"tool_calls": [part]}) for part in (first, *rest)), chunk({}, "tool_calls")))
    assert fold.calls() == [{"id": "a", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}}]
    assert fold.reason == "stop"


def test_a_call_with_arguments_that_are_none_is_a_failure() -> None:
    fold = Fold()
    fold.feed(events(chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{x"}}]})))
    assert fold.calls() == []
    assert fold.failure is not None
    assert "arguments that are no JSON object" in fold.failure[1]


def test_an_error_in_the_stream_is_kept() -> None:
    fold = Fold()
    fold.feed(b'data: {"choices": [{"in\n\n' + events({"error": {"message": "lost", "code": "engine_lost"}}))
    assert fold.failure == (500, "lost")


def test_log_probabilities_of_both_routes() -> None:
    fold = Fold()
    top = [{"token": "a", "logprob": -0.1, "bytes": [97]}, {"token": "b", "logprob": -2.0, "bytes": [98]}]
    [part] = fold.feed(
        events(
            chunk(
                {"content": "a"}, logprobs={"content": [{"token": "a", "logprob": -0.1, "top_logprobs": top}]}
            )
        )
    )
    wanted = {"token": "a", "logprob": -0.1}
    assert part.logprobs == [wanted | {"top_logprobs": [wanted, {"token": "b", "logprob": -2.0}]}]
    plain = {"tokens": ["a"], "token_logprobs": [-0.1], "top_logprobs": [{"a": -0.1, "b": -2.0}]}
    [other] = fold.feed(events({"choices": [{"index": 0, "text": "a", "logprobs": plain}]}))
    assert other.logprobs == part.logprobs


def test_who_switched_thinking_off_reads_no_thoughts() -> None:
    data = events(chunk({"reasoning": "hm"}), chunk({"content": "yes"}, "stop"))
    for thoughts in (True, False):
        answer = Answer("m", as_message, Clock(), stream=False, thoughts=thoughts)
        assert answer.take(data) == []
        [line] = answer.end()
        assert line["message"].get("thinking") == ("hm" if thoughts else None)
        streamed = Answer("m", as_response, Clock(), stream=True, thoughts=thoughts).take(data)
        assert [line["response"] for line in streamed] == (["", "yes"] if thoughts else ["yes"])


def test_durations_add_up() -> None:
    clock = Clock()
    clock.load_s = 0.0
    clock.token()
    told = clock.durations(3, 2)
    parts = told["prompt_eval_duration"] + told["eval_duration"]
    assert told["total_duration"] >= parts - 2
    assert {name for name in told if name.endswith("count")} == {"prompt_eval_count", "eval_count"}
    assert stamp(0.5) == "1970-01-01T00:00:00.500000000Z"


def test_names_have_tags() -> None:
    assert [tagged("a/b"), tagged("a/b:v1"), untagged("a/b:latest"), untagged("a/b:v1")] == [
        "a/b:latest",
        "a/b:v1",
        "a/b",
        "a/b:v1",
    ]
    assert at_hub("hf.co/Org/Name:latest") == ("Org/Name", "main")
    assert at_hub("Org/Name:v1.0") == ("Org/Name", "v1.0")
    with pytest.raises(BadRequest, match="model is required"):
        at_hub(None)


def test_errors_that_clients_know_by_heart() -> None:
    assert worded(404, "model_not_found", "no such", "x:latest") == (
        404,
        'model "x:latest" not found, try pulling it first',
    )
    assert worded(429, "queue_full", "too many", "x") == (503, BUSY)
    assert worded(404, "route_unserved", "m makes embeddings", "m", "/api/chat")[1].startswith(
        '"m" does not support chat'
    )


def test_quantization_in_a_word() -> None:
    assert quantization({"torch_dtype": "bfloat16"}) == "BF16"
    assert quantization({"text_config": {"dtype": "float16"}}) == "F16"
    assert quantization({"quantization_config": {"quant_method": "awq", "bits": 4}}) == "AWQ 4 BIT"
    assert quantization({}) == "unknown"
