"""Our own endpoints over a real server that no engine was asked of yet: shapes, guards and the list of models."""

import json
import socket
from pathlib import Path

import httpx
import pytest
from serving import Vllama

from tests.api.caches import CHAT, EMBED, RERANK
from tests.api.spellings import SPELLINGS


@pytest.fixture
def server(vllama_server, fake_cache: Path) -> Vllama:
    return vllama_server(fake_cache, fake=True, env={"VLLAMA_BODY_BYTES_MAX": "4k"})


@pytest.fixture
def http(server: Vllama):
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        yield client


def error_of(answer: httpx.Response) -> dict:
    """The error, after checking that it has OpenAI's shape."""
    tree = answer.json()
    assert set(tree) == {"error"}
    assert set(tree["error"]) == {"message", "type", "param", "code"}
    assert tree["error"]["param"] is None
    assert tree["error"]["message"]
    return tree["error"]


def test_what_is_served_and_what_is_not(http: httpx.Client):
    assert http.get("/health").json() == {"status": "ok"}

    listed = http.get("/v1/models").json()
    assert listed["object"] == "list"
    cards = {card["id"]: card for card in listed["data"]}
    assert set(cards) == {CHAT, EMBED, RERANK}
    assert {card["status"]["value"] for card in cards.values()} == {"unloaded"}
    assert cards[CHAT]["object"] == "model"
    assert isinstance(cards[CHAT]["created"], int)
    assert http.get(f"/v1/models/{CHAT}").json() == cards[CHAT]

    missing = http.get("/v1/models/tiny/none")
    assert (missing.status_code, error_of(missing)["code"]) == (404, "model_not_found")
    assert "tiny/none" in error_of(missing)["message"]

    for path in (
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/docs",
        "/openapi.json",
        "/v1/models/",
        "/health/",
    ):
        assert (path, http.get(path).status_code) == (path, 404)
        error_of(http.get(path))
    wrong = http.get("/v1/chat/completions")
    assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")


def test_requests_that_cannot_be_served_are_refused_in_openais_shape(http: httpx.Client):
    def ask(**request) -> tuple[int, str]:
        answer = http.post("/v1/chat/completions", **request)
        assert answer.headers["x-request-id"]
        return answer.status_code, error_of(answer)["code"]

    assert ask(content=b"{") == (400, "bad_request")
    assert ask(content=b'{"model":"a","model":"b"}') == (400, "bad_request")
    assert ask(json={"model": "tiny/none"}) == (404, "model_not_found")
    assert ask(json={"model": "hat"}) == (404, "model_not_found")  # part of a word is not a name
    assert ask(json={"model": CHAT}, headers={"X-Vllama-Wait-S": "soon"}) == (400, "bad_request")
    assert ask(content=b" " * 4001) == (413, "body_too_large")
    assert ask(content=iter([b" " * 4000, b" "])) == (413, "body_too_large")
    near = error_of(http.post("/v1/chat/completions", json={"model": "tiny/chatt"}))["message"]
    assert CHAT in near


def test_a_request_id_is_the_clients_if_it_is_harmless(http: httpx.Client):
    def id_for(given: str) -> str:
        return http.post("/score", content=b"{", headers={"X-Request-Id": given}).headers["x-request-id"]

    assert id_for("mine-7") == "mine-7"
    assert id_for("x" * 129) != "x" * 129


def test_a_web_page_cannot_command_the_server(http: httpx.Client, server: Vllama):
    body = json.dumps({"model": CHAT})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "text/json"):
        refused = http.post("/control/stop", content=body, headers={"Content-Type": kind})
        assert (kind, refused.status_code, error_of(refused)["code"]) == (kind, 415, "unsupported_media_type")
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "https://localhost"):
        refused = http.post("/control/stop", json={"model": CHAT}, headers={"Origin": origin})
        assert (origin, refused.status_code, error_of(refused)["code"]) == (origin, 403, "forbidden")
        assert http.get("/control/ps", headers={"Origin": origin}).status_code == 403
    assert http.post("/control/stop", json={"model": CHAT}, headers={"Origin": server.url}).status_code == 200
    with_charset = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert http.post("/control/stop", content=body, headers=with_charset).status_code == 200


def test_commands_say_what_is_wrong_with_them(http: httpx.Client):
    def command(verb: str, body: object) -> tuple[int, str, str]:
        answer = http.post(f"/control/{verb}", json=body)
        error = error_of(answer)
        return answer.status_code, error["code"], error["message"]

    assert command("start", {})[:2] == (400, "bad_request")
    assert command("start", [])[:2] == (400, "bad_request")
    assert command("start", {"model": 7})[:2] == (400, "bad_request")
    assert command("sleep", {"model": CHAT, "level": 4})[:2] == (400, "bad_request")
    assert command("sleep", {"model": CHAT, "forse": True})[:2] == (400, "bad_request")
    assert "forse" in command("sleep", {"model": CHAT, "forse": True})[2]
    assert command("stop", {"model": "tiny/none"})[:2] == (404, "model_not_found")
    stopped = http.post("/control/stop", json={"model": CHAT}).json()
    assert (stopped["model"], stopped["phase"]) == (CHAT, "stopped")
    seen = http.get("/control/ps").json()
    assert [(view["model"], view["phase"]) for view in seen["instances"]] == [(CHAT, "stopped")]
    device = seen["devices"][0]
    assert device["total_bytes"] > 0
    assert device["free_bytes"] <= device["total_bytes"] - device["booked_bytes"]
    assert http.get("/control/info").json()["config"]["body_bytes_max"] == 4000


def raw(server: Vllama, method: str, target: str) -> bytes:
    """The status line of a request whose target is sent exactly as it is spelled here."""
    body = json.dumps({"model": CHAT}).encode()
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        sock.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return sock.makefile("rb").readline()


@pytest.mark.trap(28)
def test_development_endpoints_are_nowhere_however_they_are_spelled(server: Vllama):
    for target in SPELLINGS:
        for method in ("GET", "POST", "PUT"):
            status = int(raw(server, method, target).split()[1])
            assert (method, target, status) in [(method, target, code) for code in (400, 404, 405, 415)]
    assert server.get("/control/ps")["instances"] == []  # nothing was even started
