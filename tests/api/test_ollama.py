"""Ollama's routes over a server with fake engines: what goes to the engine, what comes out, byte for byte where clients look."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
from serving import free_port

from tests.api.caches import CHAT, EMBED, RERANK
from tests.api.rig import Rig

ASK = {"model": CHAT, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
TIMES = {
    "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
}  # fmt: skip
SAID = "The capital of France is Paris."


def lines_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text.splitlines()]


def error_in(answer: httpx.Response) -> str:
    """The error, after checking that it has Ollama's shape."""
    tree = answer.json()
    assert list(tree) == ["error"]
    assert isinstance(tree["error"], str)
    return tree["error"]


def last(rig: Rig, model: str = CHAT) -> dict[str, Any]:
    """The body that the engine got."""
    body: dict[str, Any] = rig.engine(model, "GET", "/fake/last").json()
    return body


def test_a_chat_streams_line_by_line(rig: Rig) -> None:
    answer = rig.http.post("/api/chat", json=ASK, headers={"X-Request-Id": "mine"})
    *parts, end = lines_of(answer)
    assert "".join(part["message"]["content"] for part in parts) == SAID
    assert all(set(part) == {"model", "created_at", "message", "done"} and not part["done"] for part in parts)
    assert end["message"] == {"role": "assistant", "content": ""}
    assert (end["model"], end["done"], end["done_reason"]) == (CHAT, True, "stop")
    assert set(end) == {"model", "created_at", "message", "done", "done_reason"} | TIMES
    assert end["eval_count"] == 6
    assert end["total_duration"] >= end["load_duration"] > 0  # it was started for this
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["x-vllama-state"] == "cold"
    assert last(rig)["stream_options"] == {"include_usage": True}
    assert rig.view(CHAT)["in_flight"] == 0


def test_and_comes_in_one_piece_where_that_is_wanted(rig: Rig) -> None:
    answer = rig.http.post(
        "/api/chat", json=ASK | {"stream": False, "options": {"num_predict": 2, "seed": 1}}
    )
    assert answer.headers["content-type"].startswith("application/json")
    tree = answer.json()
    assert tree["message"] == {"role": "assistant", "content": "The capital"}
    assert (tree["done"], tree["done_reason"]) == (True, "length")
    assert set(tree) >= TIMES
    body = last(rig)
    assert (body["max_tokens"], body["seed"], body["model"]) == (2, 1, CHAT)


def test_a_prompt_is_a_message_or_goes_as_it_is(rig: Rig) -> None:
    ask = {"model": CHAT, "prompt": "What is the capital of France?", "stream": False}
    tree = rig.http.post("/api/generate", json=ask | {"system": "Be brief."}).json()
    assert (tree["response"], tree["done_reason"]) == (SAID, "stop")
    assert [message["role"] for message in last(rig)["messages"]] == ["system", "user"]
    raw = rig.http.post("/api/generate", json=ask | {"raw": True}).json()
    assert raw["response"]
    assert last(rig)["prompt"] == ask["prompt"]
    rig.http.post("/api/generate", json=ask | {"suffix": "!"}).raise_for_status()
    assert last(rig)["suffix"] == "!"
    *parts, end = lines_of(rig.http.post("/api/generate", json=ask | {"stream": True}))
    assert "".join(part["response"] for part in parts) == SAID
    assert set(end) >= TIMES


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"template": "{{ .Prompt }}"}, "template"), ({"context": [1]}, "context"), ({"raw": True, "images": ["x"]}, "images"),
    ({"options": {"mirostat": 1}}, "mirostat"), ({"format": 7}, "format"), ({"stream": "no"}, "stream"),
    ({"keep_alive": "soon"}, "keep_alive"), ({"think": 3}, "think"), ({"prompt": 1}, "prompt"),
]  # fmt: skip


def test_what_cannot_be_is_refused_before_an_engine_starts(rig: Rig) -> None:
    for more, named in UNFIT:
        answer = rig.http.post("/api/generate", json={"model": CHAT, "prompt": "x"} | more)
        assert answer.status_code == 400
        assert named in error_in(answer)
    assert rig.view(CHAT)["phase"] == ""


def test_a_model_is_found_as_clients_write_it(rig: Rig) -> None:
    for name in (f"{CHAT}:latest", "TINY/Chat", "chat", "Chat:latest"):
        tree = rig.http.post("/api/chat", json=ASK | {"model": name, "stream": False}).json()
        assert tree["model"] == name
        assert last(rig)["model"] == CHAT


def test_a_model_that_is_not_there_is_to_be_pulled(rig: Rig) -> None:
    for route in ("chat", "generate", "embed", "embeddings", "show", "copy"):
        body = {"model": "llama3.2", "source": "llama3.2", "destination": "x", "prompt": "x", "input": "x"}
        answer = rig.http.post(f"/api/{route}", json=ASK | body)
        assert answer.status_code == 404
        assert error_in(answer) == 'model "llama3.2" not found, try pulling it first'
    gone = rig.http.request("DELETE", "/api/delete", json={"model": "llama3.2"})
    assert (gone.status_code, error_in(gone)) == (404, 'model "llama3.2" not found, try pulling it first')


def test_errors_have_the_shape_that_clients_read(rig: Rig) -> None:
    unfit = rig.http.post("/api/chat", json=ASK | {"model": EMBED})
    assert unfit.status_code == 400
    assert error_in(unfit).startswith(f'"{EMBED}" does not support chat')
    assert error_in(rig.http.post("/api/chat", content=b"{")).startswith("invalid JSON")
    assert error_in(rig.http.post("/api/chat", content=b"")) == "missing request body"
    assert error_in(rig.http.post("/api/chat", json={})) == "model is required"
    assert rig.http.get("/api/chat").status_code == 405
    assert error_in(rig.http.get("/api/nothing"))
    tools = rig.http.post("/api/chat", json=ASK | {"tools": [{"function": {"name": "f"}}]})
    assert tools.status_code == 400
    assert "tool-call-parser" in error_in(tools)
    unserved = (("POST", "create"), ("POST", "push"), ("HEAD", "blobs/sha256:1"), ("POST", "blobs/sha256:1"))
    for method, path in unserved:
        answer = rig.http.request(method, f"/api/{path}", content=b"{}")
        assert answer.status_code == 501
        assert method == "HEAD" or "vllama does not serve" in error_in(answer)


def test_curl_says_that_it_sends_a_form(rig: Rig) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = rig.http.post("/api/chat", content=json.dumps(ASK | {"stream": False}), headers=form)
    assert answer.json()["message"]["content"] == SAID


def test_an_engine_that_dies_in_the_middle_is_a_last_line(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig("die_mid_stream")
    *parts, end = lines_of(rig.http.post("/api/chat", json=ASK))
    assert parts
    assert "broke the connection" in end["error"]
    whole = rig.http.post("/api/chat", json=ASK | {"stream": False})
    assert whole.status_code >= 500
    assert error_in(whole)


def test_who_hangs_up_takes_the_generation_along(rig: Rig) -> None:
    rig.http.post("/api/chat", json=ASK).raise_for_status()
    rig.faults("gated")
    with rig.http.stream("POST", "/api/chat", json=ASK):
        rig.waits_at(CHAT, "all")
        assert rig.view(CHAT)["in_flight"] == 1
    rig.until(CHAT, in_flight=0)
    assert rig.stats(CHAT)["aborted"] == 1


def test_an_operator_cuts_it_off_and_that_is_said(rig: Rig) -> None:
    rig.http.post("/api/chat", json=ASK).raise_for_status()
    rig.faults("gated")
    with rig.http.stream("POST", "/api/chat", json=ASK) as answer:
        rig.waits_at(CHAT, "all")
        rig.faults()
        assert rig.command("sleep", CHAT, force=True).status_code == 200
        assert "cut off" in json.loads(list(answer.iter_lines())[-1])["error"]


def test_load_and_unload_by_saying_nothing(rig: Rig) -> None:
    tree = rig.http.post("/api/generate", json={"model": CHAT, "keep_alive": "10m"}).json()
    assert (tree["done"], tree["done_reason"], tree["response"], tree["model"]) == (True, "load", "", CHAT)
    assert rig.view(CHAT)["phase"] == "awake"
    assert rig.view(CHAT)["idle_after_s"] == 600
    answer = rig.http.post("/api/chat", json={"model": f"{CHAT}:latest", "messages": [], "keep_alive": -1})
    assert answer.json()["message"] == {"role": "assistant", "content": ""}
    assert answer.json()["done_reason"] == "load"
    assert answer.headers["x-request-id"]
    assert rig.view(CHAT)["idle_after_s"] is None
    tree = rig.http.post("/api/generate", json={"model": CHAT, "keep_alive": 0}).json()
    assert tree["done_reason"] == "unload"
    rig.until(CHAT, phase="asleep")
    assert (
        rig.http.post("/api/generate", json={"model": RERANK, "keep_alive": "0s"}).json()["done_reason"]
        == "unload"
    )
    assert rig.view(RERANK)["phase"] == ""  # nothing is started to be unloaded
    assert rig.http.post("/api/embed", json={"model": EMBED, "input": []}).json()["embeddings"] == []
    assert rig.view(EMBED)["phase"] == "awake"


def test_a_request_says_how_long_its_model_stays(rig: Rig) -> None:
    rig.http.post("/api/chat", json=ASK | {"keep_alive": 42}).raise_for_status()
    assert rig.view(CHAT)["idle_after_s"] == 42
    assert "keep_alive" not in last(rig)
    rig.http.post("/api/embed", json={"model": EMBED, "input": "x", "keep_alive": 0}).raise_for_status()
    rig.until(EMBED, phase="asleep")


def test_texts_become_vectors(rig: Rig) -> None:
    tree = rig.http.post("/api/embed", json={"model": EMBED, "input": ["a", "b"], "dimensions": 8}).json()
    assert set(tree) >= {"model", "embeddings", "total_duration", "load_duration"}
    assert [len(vector) for vector in tree["embeddings"]] == [32, 32]
    assert (last(rig, EMBED)["truncate_prompt_tokens"], last(rig, EMBED)["dimensions"]) == (-1, 8)
    one = rig.http.post("/api/embeddings", json={"model": EMBED, "prompt": "a"}).json()
    assert one == {"embedding": tree["embeddings"][0]}
    rig.http.post("/api/embed", json={"model": EMBED, "input": "a", "truncate": False}).raise_for_status()
    assert "truncate_prompt_tokens" not in last(rig, EMBED)
    unfit = rig.http.post("/api/embed", json={"model": CHAT, "input": "a"})
    assert error_in(unfit).startswith(f'"{CHAT}" does not support embeddings')


def test_what_runs_and_until_when(rig: Rig) -> None:
    assert rig.http.get("/api/ps").json() == {"models": []}
    rig.http.post("/api/chat", json=ASK | {"keep_alive": "5m"}).raise_for_status()
    rig.http.post("/api/embed", json={"model": EMBED, "input": "x", "keep_alive": -1}).raise_for_status()
    first, second = rig.http.get("/api/ps").json()["models"]
    assert [first["name"], second["name"]] == [f"{EMBED}:latest", f"{CHAT}:latest"]  # the longest first
    assert set(second) == {
        "name", "model", "size", "digest", "details", "expires_at", "size_vram", "context_length",
    }  # fmt: skip
    assert set(second["details"]) == {
        "parent_model", "format", "family", "families", "parameter_size", "quantization_level",
    }  # fmt: skip
    assert first["expires_at"] > "2300"
    assert second["size"] > 0
    assert second["size_vram"] == 0  # no GPU here
    assert second["context_length"] == 512
    rig.http.post("/api/generate", json={"model": CHAT, "keep_alive": 0}).raise_for_status()
    rig.until(CHAT, phase="asleep")
    assert [model["name"] for model in rig.http.get("/api/ps").json()["models"]] == [f"{EMBED}:latest"]


def test_what_there_is(rig: Rig) -> None:
    listed = {model["name"]: model for model in rig.http.get("/api/tags").json()["models"]}
    assert set(listed) == {f"{name}:latest" for name in (CHAT, EMBED, RERANK)}
    model = listed[f"{CHAT}:latest"]
    assert set(model) == {"name", "model", "modified_at", "size", "digest", "details"}
    assert (model["size"], len(model["digest"]), model["details"]["family"]) == (4096, 64, "qwen3")
    assert model["modified_at"].endswith("Z")
    shown = rig.http.post("/api/show", json={"model": CHAT}).json()
    assert shown["capabilities"] == ["completion"]
    assert shown["model_info"]["general.architecture"] == "qwen3"
    assert shown["model_info"]["qwen3.context_length"] == 512
    assert set(shown) >= {"modelfile", "parameters", "template", "details", "model_info", "modified_at"}
    assert rig.http.post("/api/show", json={"name": EMBED}).json()["capabilities"] == ["embedding"]


def test_the_door(rig: Rig) -> None:
    assert rig.http.get("/").text == "Ollama is running"
    assert rig.http.head("/").status_code == 200
    assert rig.http.head("/api/version").status_code == 200
    assert rig.http.head("/api/tags").status_code == 200
    version = rig.http.get("/api/version").json()["version"]
    assert [int(part) for part in version.split(".")] >= [0, 6, 4]  # what editors ask for at least


CHANGES = [("POST", "pull"), ("DELETE", "delete"), ("POST", "copy"), ("POST", "create"), ("POST", "push")]


def test_a_page_of_another_site_changes_nothing(rig: Rig) -> None:
    body = json.dumps({"model": CHAT, "source": CHAT, "destination": "x"})
    for method, verb in CHANGES:
        for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
            answer = rig.http.request(method, f"/api/{verb}", content=body, headers=headers)
            assert answer.status_code == 403
            assert error_in(answer)
    assert len(rig.http.get("/api/tags").json()["models"]) == 3


def test_keys_guard_it_all(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(env={"VLLAMA_API_KEY": "data", "VLLAMA_CONTROL_KEY": "control"})
    data, control = ({"Authorization": f"Bearer {key}"} for key in ("data", "control"))
    assert error_in(rig.http.get("/api/tags"))
    assert rig.http.get("/").status_code == 401
    assert rig.http.get("/api/tags", headers=data).status_code == 200
    copy = {"source": CHAT, "destination": "x"}
    assert rig.http.post("/api/copy", json=copy, headers=data).status_code == 401
    assert rig.http.post("/api/copy", json=copy, headers=control).status_code == 200


def test_it_listens_where_ollamas_clients_look(make_rig: Callable[..., Rig]) -> None:
    port = free_port()
    rig = make_rig(args=("--ollama-port", str(port)))
    assert httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).text == "Ollama is running"
    assert rig.http.get("/").text == "Ollama is running"
    done = subprocess.run(
        [sys.executable, "-m", "vllama.cli.main", "serve", "--port", "0", "--ollama-port", str(port)],
        env=rig.server.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken" in done.stderr
    assert "choose another --ollama-port" in done.stderr


def test_workers_serve_it_too(make_rig: Callable[..., Rig]) -> None:
    port = free_port()
    rig = make_rig(args=("--workers", "2", "--ollama-port", str(port)))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as other:
        for http in (rig.http, other):
            assert http.post("/api/chat", json=ASK | {"stream": False}).json()["message"]["content"] == SAID
    answer = rig.chat(CHAT, keep_alive="7m")
    assert answer.status_code == 200
    assert rig.view(CHAT)["idle_after_s"] == 420
    assert (
        rig.http.post("/api/generate", json={"model": CHAT, "keep_alive": 0}).json()["done_reason"]
        == "unload"
    )
    rig.until(CHAT, phase="asleep")
