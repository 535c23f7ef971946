"""GET /debug/plan over a real server: what it says is what then happens, and asking for it changes nothing."""

import pytest

from tests.api.caches import CHAT, EMBED, RERANK
from tests.api.rig import error_of

TIGHT = {"VLLAMA_MEMORY_LIMIT": "400MiB"}  # room for one of the fake engines awake


def plan(rig, model: str) -> dict:
    return rig.http.get("/debug/plan", params={"model": model}).raise_for_status().json()


def embed(rig):
    return rig.http.post("/v1/embeddings", json={"model": EMBED, "input": "x"})


def what_happened(rig, since: int) -> list[tuple[str, int]]:
    events = rig.server.events(since)
    return [(e["model"], e["level"]) for e in events if e["kind"] == "EvictionOrdered"]


def seq(rig) -> int:
    return max((e["seq"] for e in rig.server.events() if "seq" in e), default=0)


def test_of_a_model_that_nobody_has_asked_for(rig):
    found = plan(rig, CHAT)
    assert (found["outcome"], found["phase"], found["evicts"]) == ("start", "stopped", [])
    assert found["needs_bytes"] > 0
    assert next(iter(found["free_bytes"].values())) > found["needs_bytes"]
    assert found["takes_s"] is None  # it was never started
    assert "would be started" in found["words"]
    assert rig.view(CHAT)["phase"] == ""  # nothing has begun


def test_an_awake_one_answers_at_once_and_a_sleeper_wakes_from_its_level_in_the_time_it_took_before(rig):
    assert rig.chat(CHAT).status_code == 200
    assert plan(rig, CHAT)["outcome"] == "awake"
    for _ in range(2):
        rig.command("sleep", CHAT, level=2).raise_for_status()
        found = plan(rig, CHAT)
        assert (found["outcome"], found["level"]) == ("wake", 2)
        assert rig.chat(CHAT).headers["x-vllama-state"] == "wake"
    assert found["takes_s"] > 0  # the second time it is known
    assert found["about_s"] >= found["takes_s"]


def test_who_would_go_is_who_then_goes(make_rig):
    rig = make_rig(env=TIGHT)
    assert rig.chat(CHAT).status_code == 200
    found = plan(rig, EMBED)
    assert found["outcome"] == "start"
    assert {g["model"] for g in found["evicts"]} == {CHAT}
    assert f"{CHAT} (idle" in found["words"]
    assert "short" in found["words"]
    since = seq(rig)
    assert plan(rig, EMBED)["evicts"][0]["level"] == found["evicts"][0]["level"]
    assert seq(rig) == since  # nothing was journalled
    assert embed(rig).status_code == 200
    assert what_happened(rig, since) == [(g["model"], g["level"]) for g in found["evicts"]]


def test_who_would_be_waited_for_is_said_and_left_alone(make_rig):
    rig = make_rig(env=TIGHT | {"VLLAMA_POLICY": "lru"})  # `cost` may say first that its turn is not over
    with rig.stream(CHAT, gate="a") as (_, lines):
        next(lines)
        found = plan(rig, RERANK)
        assert [CHAT, "busy", 1] in found["waits_for"]
        assert found["about_s"] is None
        assert "in flight" in found["words"]
        assert rig.view(CHAT)["phase"] == "awake"
        rig.let(CHAT, "a")
        assert list(lines)[-1] == "[DONE]"


def test_what_the_pinned_hold_is_said_and_that_it_would_be_refused(make_rig):
    rig = make_rig(env=TIGHT)
    (rig.server.config_dir / "models.yaml").write_text(f"{CHAT}: {{pinned: true}}\n")
    assert rig.http.post("/control/reload", json={}).status_code == 200
    assert rig.chat(CHAT).status_code == 200
    found = plan(rig, EMBED)
    assert [CHAT, "pinned", 0] in found["waits_for"]
    assert "pinned" in found["words"]
    assert found["evicts"] == []


def test_what_can_never_fit_says_why(make_rig):
    rig = make_rig(env={"VLLAMA_MEMORY_LIMIT": "1KiB"})
    found = plan(rig, CHAT)
    assert (found["outcome"], found["code"]) == ("refused", "no_memory")
    assert "can never fit" in found["words"]


@pytest.mark.parametrize(("query", "status"), [({}, 400), ({"model": "no/such"}, 404)])
def test_a_model_must_be_named_and_known(rig, query: dict, status: int):
    answer = rig.http.get("/debug/plan", params=query)
    assert answer.status_code == status
    assert error_of(answer)["message"]


def test_the_command_says_it_in_words_and_as_json(rig):
    done = rig.server.cli("plan", CHAT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{CHAT} would be started")
    assert '"outcome": "start"' in rig.server.cli("plan", CHAT, "--json").stdout
    assert rig.server.cli("plan", "no/such").returncode == 1
    assert rig.server.cli("plan").returncode == 2
    assert rig.server.cli("plan", CHAT, "--server", "http://127.0.0.1:9").returncode == 3
