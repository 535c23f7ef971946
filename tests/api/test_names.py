"""Every name of a model reaches its engine, under the name that the engine knows."""

import json
from pathlib import Path

import pytest

from tests.api.caches import CHAT, EMBED, make_cache
from tests.api.rig import Rig, chat_body, error_of
from vllama.api.body import model_of, with_model

MODELS_YAML = f"""\
{CHAT}:
  aliases: [mine, gpt-4o]
  lora: {{sql: /adapters/sql}}
"""


OURS = ("X-Vllama-Wait-S", "X-Vllama-Priority")
ASKING = (
    "/v1/models/", "/v1/responses/", "/control/show?model=", "/control/logs?model=", "/control/history?records=",
    "/debug/plan?model=", "/debug/explain?model=", "/debug/explain?request=", "/debug/events?since=", "/debug/events?follow=",
    "/metrics?engines=", "/nothing/",
)  # fmt: skip


@pytest.fixture
def named(vllama_server, fake_cache: Path, tmp_path: Path):
    rigs = []

    def make(cache: Path = fake_cache) -> Rig:
        config = tmp_path / "config"
        config.mkdir()
        (config / "models.yaml").write_text(MODELS_YAML)
        server = vllama_server(cache, fake=True, args=("--config-dir", str(config)))
        rigs.append(Rig(server, tmp_path / "faults"))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def test_every_name_is_served_and_the_actor_is_the_model(named) -> None:
    rig = named()
    for name in (CHAT, "mine", "gpt-4o", "Chat", "chat", "sql"):
        assert rig.chat(name).status_code == 200, name
    assert {view["model"] for view in rig.http.get("/control/ps").json()["instances"]} == {CHAT}
    with rig.stream("CHAT") as (answer, lines):
        assert answer.status_code == 200
        assert list(lines)[-1] == "[DONE]"
    assert rig.command("sleep", "mine", level=2).json()["model"] == CHAT
    assert rig.chat("gpt-4o").headers["x-vllama-state"] == "wake"
    assert rig.command("stop", "CHAT").json() | {"log": ""} == {
        "model": CHAT, "phase": "stopped", "level": 0, "log": "", "note": "",
    }  # fmt: skip


def test_what_a_request_says_is_never_repeated_at_length(named) -> None:
    """Names, and all else that an error quotes: of 100,000 characters its reader gets the first two hundred."""
    rig = named()
    long, query = "x" * 100_000, "x" * 50_000  # a request's head has its bound
    bodies = [
        rig.chat(long),
        rig.chat(long, headers={"X-Vllama-Wait-S": "60"}),
        rig.chat(CHAT, keep_alive=long),
        *(rig.command(verb, long) for verb in ("start", "stop", "restart", "delete", "pull")),
        rig.http.post("/control/pull", json={"model": CHAT, "revision": long}),
        rig.http.post("/control/copy", json={"source": long, "destination": "short"}),
        rig.http.post("/control/start", json={"model": CHAT, long: 1}),
        rig.http.post("/api/chat", json={"model": long, "messages": []}),
        rig.http.post("/api/chat", json={"model": CHAT, "messages": [{"role": long, "content": ""}]}),
        rig.http.post(
            "/api/chat", json={"model": CHAT, "messages": [{"role": "user", "content": "x"}], "think": long}
        ),
        rig.http.post("/api/show", json={"model": long}),
        rig.http.post("/api/pull", json={"model": long}),
        rig.http.post("/tokenize", json={"model": CHAT}, headers={"Content-Encoding": query}),
        rig.http.post("/control/stop", json={"model": CHAT}, headers={"Origin": f"http://{query}"}),
        rig.http.post("/control/stop", json={"model": CHAT}, headers={"Host": query}),
        *(rig.http.post("/tokenize", json={"model": CHAT}, headers={name: query}) for name in OURS),
        *(rig.http.get(f"{path}{query}") for path in ASKING),
    ]
    for answer in bodies:
        asked = answer.request.url.raw_path[:60]
        assert 400 <= answer.status_code < 500, asked
        assert len(answer.content) < 700, asked
    assert rig.http.get("/control/ps").json()["instances"] == []


def test_the_list_has_aliases_and_adapters(named) -> None:
    rig = named()
    cards = {card["id"]: card for card in rig.http.get("/v1/models").json()["data"]}
    assert cards[CHAT]["aliases"] == ["mine", "gpt-4o"]
    assert cards[EMBED]["aliases"] == []
    assert (cards["sql"]["parent"], cards["sql"]["root"]) == (CHAT, "/adapters/sql")
    assert cards[CHAT]["status"] == {"value": "unloaded", "phase": "stopped"}
    assert rig.chat("mine").status_code == 200
    for name, identity in ((CHAT, CHAT), ("mine", CHAT), ("CHAT", CHAT), ("sql", "sql")):
        card = rig.http.get(f"/v1/models/{name}").json()
        assert (card["id"], card["status"]["value"]) == (identity, "loaded")
    assert rig.command("sleep", CHAT).status_code == 200
    assert rig.http.get(f"/v1/models/{CHAT}").json()["status"]["value"] == "sleeping"


@pytest.mark.parametrize("name", ["tiny/chatt", "bed", "other/chat"])
def test_an_unknown_name_is_404_with_the_nearest(named, name: str) -> None:
    rig = named()
    for answer in (rig.chat(name), rig.http.get(f"/v1/models/{name}"), rig.command("start", name)):
        assert answer.status_code == 404
        error = error_of(answer)
        assert error["code"] == "model_not_found"
        assert "did you mean" in error["message"]


def test_an_ambiguous_name_is_404_and_a_new_model_is_found_when_it_comes(named, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "hub")
    rig = named(cache)
    assert rig.chat("chat").status_code == 200
    make_cache(cache, {"other/chat": "Qwen3ForCausalLM"})
    assert rig.chat("other/chat").status_code == 200
    answer = rig.chat("Chat")
    assert answer.status_code == 404
    assert [name for name in (CHAT, "other/chat") if name not in error_of(answer)["message"]] == []
    assert {card["id"] for card in rig.http.get("/v1/models").json()["data"]} >= {CHAT, "other/chat"}


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(chat_body("old", n=1e400, big=10**30)).encode(),
        b' { "messages" : [{"model":"x"}] ,\n "model" : "o\\u006cd" , "f": 1.0e-5 }',
        json.dumps({"model": "old", "x": "\u00e9"}, ensure_ascii=False).encode("utf-16"),
        b'{"model":"old"}',
    ],
)
def test_another_model_changes_nothing_else(body: bytes) -> None:
    changed = with_model(body, "new/name")
    assert model_of(changed) == "new/name"
    before, after = json.loads(body), json.loads(changed)
    assert after == before | {"model": "new/name"}
    if body.startswith(b" "):
        assert changed == body.replace(b'"o\\u006cd"', b'"new/name"')


def test_a_model_whose_config_cannot_be_read_is_listed_as_broken(named, tmp_path: Path) -> None:
    hub = make_cache(tmp_path / "hub")
    (config,) = (hub / "models--tiny--chat").glob("snapshots/*/config.json")
    config.write_text("{ not json")
    rig = named(hub)
    cards = {card["id"]: card for card in rig.http.get("/v1/models").json()["data"]}
    assert "config.json" in cards[CHAT]["problem"]
    assert "problem" not in cards[EMBED]
    assert rig.http.get("/control/info").json()["broken_models"] == [f"{CHAT}: {cards[CHAT]['problem']}"]
    failed = rig.chat(CHAT)
    assert failed.status_code == 502
    assert "not a valid JSON file" in error_of(failed)["message"]
    assert rig.kinds(CHAT).count("EngineSpawned") == 2  # the automatic second try of design/commands.md
