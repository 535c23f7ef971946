"""Every inference route over a real server and fake engines: what goes in comes out at the engine, and nothing else does."""

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.api.caches import ARCHITECTURES, CHAT, make_cache
from tests.api.rig import Rig, error_of
from vllama.api.routes import FORM_PATHS, JSON_PATHS, REALTIME, RESPONSE, RESPONSE_CANCEL

# Routes whose fake answers with what it got.
ECHOED = [
    path
    for path in JSON_PATHS
    if path
    not in (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/classify",
        "/score",
        "/v1/score",
        "/rerank",
        "/v1/rerank",
        "/v2/rerank",
    )
]
MIB = 2**20
OTHER = "tiny/other"


def test_every_inference_route_of_the_page_is_one_of_ours():
    """design/vllm.md, section 4: what vLLM has."""
    page = (Path(__file__).resolve().parents[2] / "design" / "vllm.md").read_text(encoding="utf-8")
    said = page.partition("Inference routes seen: ")[2].partition("Never to be reachable")[0]
    found = set()
    for route, more in re.findall(r"`(/[\w/]+)(?:\(([^)]*)\))?`", said):
        found |= {route, *(route + path for path in filter(None, more.split(",")))}
    assert len(found) >= 25
    assert found - {*JSON_PATHS, *FORM_PATHS, REALTIME} == set()
    assert "GET and cancel by id" in said
    by_id = {"/v1/responses/{response_id}", "/v1/responses/{response_id}/cancel"}
    assert by_id == {RESPONSE, RESPONSE_CANCEL}


def test_every_json_route_carries_body_query_and_headers(rig: Rig):
    body = b'{"model" : "tiny/chat", "x": [1.50, "\\u00fc"]}'
    sent = {
        "Content-Type": "application/json; charset=utf-8",
        "X-Custom": "kept",
        "anthropic-version": "2023-06-01",
        "Authorization": "Bearer of-vllama",
        "x-api-key": "of-vllama",
        "Cookie": "a=b",
        "X-Vllama-Wait-S": "60",
        "Connection": "x-hop, keep-alive",
        "X-Hop": "dropped",
    }
    for path in ECHOED:
        answer = rig.http.post(f"{path}?beta=true&a=%2F%20&a=", content=body, headers=sent)
        got = answer.raise_for_status().json()
        assert (got["method"], got["target"]) == ("POST", f"{path}?beta=true&a=%2F%20&a=")
        assert got["body"].encode() == body
        headers = got["headers"]
        assert headers["content-type"] == "application/json; charset=utf-8"
        assert (headers["x-custom"], headers["anthropic-version"]) == ("kept", "2023-06-01")
        assert headers["content-length"] == str(len(body))
        assert headers["x-request-id"] == answer.headers["x-request-id"]
        for ours in ("authorization", "x-api-key", "cookie", "x-vllama-wait-s", "x-hop"):
            assert ours not in headers
    classes = rig.http.post("/classify", json={"model": "tiny/rerank", "input": "x"})
    assert classes.raise_for_status().json()["data"]


def test_a_method_that_a_route_has_not_is_405_and_options_is_ours(rig: Rig):
    for path in (*JSON_PATHS, *FORM_PATHS, "/v1/responses/resp_1/cancel", "/control/stop"):
        allowed = (
            {"GET", "HEAD", "OPTIONS", "POST"} if path == "/v1/responses/render" else {"OPTIONS", "POST"}
        )
        for method in {"GET", "HEAD", "PUT", "DELETE", "PATCH"} - allowed:
            refused = rig.http.request(method, path)
            assert (path, method, refused.status_code) == (path, method, 405)
            assert "POST" in refused.headers["allow"]
        options = rig.http.options(path)
        assert (path, options.status_code, options.content) == (path, 204, b"")
        assert set(options.headers["allow"].split(", ")) == allowed
    assert set(rig.http.options("/v1/models").headers["allow"].split(", ")) >= {"GET", "OPTIONS"}
    assert rig.http.options("/nothing").status_code == 404
    assert rig.http.head("/health").status_code == 200
    assert rig.server.get("/control/ps")["instances"] == []  # nothing was even started


def test_a_body_that_cannot_be_read_is_refused_before_anything_starts(rig: Rig):
    question = json.dumps({"model": CHAT}).encode()
    for coding in ("gzip", "br", "deflate", "zstd"):
        refused = rig.http.post("/tokenize", content=question, headers={"Content-Encoding": coding})
        assert (refused.status_code, error_of(refused)["code"]) == (415, "unsupported_media_type")
        refused = rig.http.post(FORM_PATHS[0], content=question, headers={"Content-Encoding": coding})
        assert refused.status_code == 415
    twice = b'{"model": "tiny/chat", "input": "' + b"x" * MIB + b'", "model": "tiny/embed"}'
    for body in (twice, b'{"model": "tiny/chat", "model": "tiny/chat"}'):
        refused = rig.http.post("/tokenize", content=body)
        assert (refused.status_code, error_of(refused)["code"]) == (400, "bad_request")
        assert "more than once" in error_of(refused)["message"]
    for body in (b'{"input": "' + b"x" * MIB, b"[" + b"1," * MIB + b"1]", b'{"x": "' + b"x" * MIB + b'"}'):
        assert rig.http.post("/tokenize", content=body).status_code == 400
    for path in JSON_PATHS:
        refused = rig.http.post(path, content=question, headers={"Content-Type": "text/plain"})
        assert (path, refused.status_code) == (path, 415)
        assert error_of(refused)["code"] == "unsupported_media_type"
    refused = rig.http.post(FORM_PATHS[0], json={"model": CHAT})
    assert (refused.status_code, error_of(refused)["code"]) == (415, "unsupported_media_type")
    refused = rig.http.post(FORM_PATHS[0], files={"file": ("a.wav", b"RIFF")})
    assert (refused.status_code, error_of(refused)["code"]) == (400, "bad_request")
    assert rig.server.get("/control/ps")["instances"] == []


def test_a_hundred_megabytes_go_through_while_others_are_answered(rig: Rig, tmp_path):
    rig.chat(CHAT).raise_for_status()
    size = 100 * 10**6
    head, tail = b'{"messages": [{"content": "', b'"}], "model": "tiny/chat"}'
    body = head + b"A" * (size - len(head) - len(tail)) + tail
    before = resident_bytes(rig.server.pid)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(rig.http.post, "/tokenize", content=body, timeout=110)
        with httpx.Client(base_url=rig.server.url, trust_env=False, timeout=5) as other:
            answered = 0
            while not sending.done():
                assert other.get("/health").status_code == 200
                answered += 1
        got = sending.result().raise_for_status().json()
    assert answered > 10
    assert (got["bytes"], got["sha256"]) == (size, hashlib.sha256(body).hexdigest())
    assert resident_bytes(rig.server.pid) - before < 50 * MIB  # it was never in memory as a whole


def resident_bytes(pid: int) -> int:
    """The most that a process has had in memory."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


@pytest.mark.parametrize("after", [False, True])
def test_a_form_finds_its_model_before_or_after_the_file(rig: Rig, after: bool):
    sound = b"RIFF\r\n--" + bytes(range(256)) * 4096 * 12
    files = [("file", ("a.wav", sound, "audio/wav")), ("language", (None, "en"))]
    model = [("model", (None, CHAT))]
    request = httpx.Request("POST", "http://x", files=files + model if after else model + files)
    content = request.read()
    for path in FORM_PATHS:
        answer = rig.http.post(
            path, content=content, headers={"Content-Type": request.headers["content-type"]}
        )
        got = answer.raise_for_status().json()
        assert (got["bytes"], got["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert got["headers"]["content-type"] == request.headers["content-type"]


def test_a_form_may_use_another_name_of_the_model(rig: Rig):
    got = rig.http.post(FORM_PATHS[0], files={"file": ("a.wav", b"RIFF"), "model": (None, "CHAT")})
    got = got.raise_for_status().json()
    assert f'name="model"\r\n\r\n{CHAT}\r\n' in got["body"]
    assert got["headers"]["content-length"] == str(len(got["body"]))


@pytest.fixture
def two_chats(vllama_server, tmp_path: Path):
    cache = make_cache(tmp_path / "hub", dict.fromkeys((CHAT, OTHER), ARCHITECTURES[CHAT]))
    rig = Rig(vllama_server(cache, fake=True), tmp_path / "faults")
    yield rig
    rig.close()


def test_a_response_is_found_by_its_id_at_the_engine_that_made_it(two_chats: Rig):
    rig, ids = two_chats, {}
    for model, stream in ((CHAT, False), (OTHER, True)):
        made = rig.http.post("/v1/responses", json={"model": model, "input": "x", "stream": stream})
        text = made.raise_for_status().text
        ids[model] = (
            json.loads(text.removeprefix("data: "))["response"]["id"] if stream else made.json()["id"]
        )
    for model, response_id in ids.items():
        got = rig.http.get(f"/v1/responses/{response_id}?include=a&stream=false").raise_for_status()
        assert (got.json()["model"], got.json()["status"]) == (model, "queued")
        assert got.json()["query"] == {"include": ["a"], "stream": ["false"]}
        assert got.headers["x-vllama-state"] == "warm"
        cancelled = rig.http.post(f"/v1/responses/{response_id}/cancel").raise_for_status()
        assert (cancelled.json()["model"], cancelled.json()["status"]) == (model, "cancelled")

    assert rig.command("sleep", CHAT).json()["phase"] == "asleep"  # its memory of responses lives on
    assert rig.http.get(f"/v1/responses/{ids[CHAT]}").json()["id"] == ids[CHAT]

    for unknown in ("resp_none", "..", "%2e%2e", "a b", "x" * 5000):
        missing = rig.http.get(f"/v1/responses/{unknown}")
        assert missing.status_code == 404
        error_of(missing)
    assert rig.command("stop", CHAT).json()["phase"] == "stopped"
    gone = rig.http.get(f"/v1/responses/{ids[CHAT]}")
    assert (gone.status_code, error_of(gone)["code"]) == (404, "response_not_found")
    assert rig.view(CHAT)["phase"] == "stopped"  # no engine is started for what is gone
    rig.chat(CHAT).raise_for_status()
    other = rig.http.post(f"/v1/responses/{ids[CHAT]}/cancel")
    assert (other.status_code, error_of(other)["code"]) == (404, "response_not_found")
    rig.until(CHAT, in_flight=0)


def test_a_body_above_the_bound_is_413_wherever_it_is_seen(make_rig):
    rig = make_rig(env={"VLLAMA_BODY_BYTES_MAX": "2MiB"})
    large = b'{"model": "tiny/chat", "x": "' + b"x" * 3 * MIB
    for content in (large, iter([large[:MIB], large[MIB:]])):
        refused = rig.http.post("/tokenize", content=content)
        assert (refused.status_code, error_of(refused)["code"]) == (413, "body_too_large")
    refused = rig.http.post(FORM_PATHS[0], files={"file": ("a", large), "model": (None, CHAT)})
    assert (refused.status_code, error_of(refused)["code"]) == (413, "body_too_large")
