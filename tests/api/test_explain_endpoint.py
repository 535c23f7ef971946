"""GET /debug/explain and `vllama explain`, against a server with memory for one of its models."""

import json
from collections.abc import Callable

import pytest

from tests.api.caches import CHAT, EMBED
from tests.api.rig import Rig, error_of


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(memory_limit="600MiB", env={"FAKE_VLLM_WEIGHTS_BYTES": str(300 * 2**20)})


def test_a_request_that_another_model_made_room_for(rig: Rig) -> None:
    assert rig.http.post("/v1/embeddings", json={"model": EMBED, "input": ["x"]}).status_code == 200
    assert rig.chat(CHAT, headers={"X-Request-Id": "the one"}).status_code == 200
    asked, wait = rig.http.get("/debug/explain?request=the%20one").json()["explanations"]
    assert (asked["kind"], asked["model"], asked["how"]) == ("asked", CHAT, "cold")
    assert (wait["kind"], wait["outcome"], wait["requests"]) == ("wait", "awake", ["the one"])
    (gone,) = wait["evictions"]
    assert (gone["model"], gone["outcome"], gone["wanted_by"]) == (EMBED, "slept", CHAT)
    assert gone["short_bytes"] > 0
    assert gone["freed_bytes"] > 0
    assert f"; {EMBED} (idle " in wait["words"]
    assert "was put to sleep at level 2, it freed " in wait["words"]
    kinds = [row["kind"] for row in rig.http.get(f"/debug/explain?model={EMBED}").json()["explanations"]]
    assert kinds == ["wait", "eviction"]

    def cli(*words: str):
        return rig.server.cli("explain", *words)

    told = cli("the one")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines()[1] == wait["words"]
    assert told.stdout.startswith(asked["words"].partition(";")[0])  # whether it still runs may change
    assert len(cli(CHAT).stdout.splitlines()) == 2
    assert len(cli().stdout.splitlines()) == 3
    assert cli("-n", "1").stdout.splitlines() == cli().stdout.splitlines()[-1:]
    assert json.loads(cli(CHAT, "--json").stdout)["explanations"][0] == wait
    unknown = cli("nobody")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
    assert "nor does the server remember a request of this id" in unknown.stderr


def test_a_refusal_by_its_request_and_what_is_no_question(rig: Rig) -> None:
    rig.faults("die_at_start")
    assert rig.chat(CHAT, headers={"X-Request-Id": "lost"}).status_code == 502
    asked, wait = rig.http.get("/debug/explain?request=lost").json()["explanations"]
    assert (asked["code"], wait["outcome"], wait["tries"]) == ("start_failed", "refused", 2)
    assert f"request lost for {CHAT} was refused after " in asked["words"]
    answer = rig.http.get("/debug/explain?request=none")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "request_not_found")
    answer = rig.http.get("/debug/explain?model=none")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
    for query in ("model=a&request=b", "limit=0", "limit=x"):
        assert rig.http.get(f"/debug/explain?{query}").status_code == 400
