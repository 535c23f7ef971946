"""X-Vllama-Priority and the models' own: who is served first over a real server, and what a bad value is told."""

from threading import Thread

import pytest

from tests.api.caches import CHAT, EMBED, RERANK
from tests.api.rig import error_of

ONE = {"VLLAMA_MEMORY_LIMIT": "600MiB", "VLLAMA_PRIORITY_MAX": "5"}
HEADER = "X-Vllama-Priority"


@pytest.mark.parametrize("value", ["high", "", "1.5", "6", "-1001", "٣", "99999999999999999999"])
def test_a_bad_value_is_400_and_says_so(make_rig, value: str):
    rig = make_rig(env={"VLLAMA_PRIORITY_MAX": "5"})
    answer = rig.chat(CHAT, headers={HEADER: value.encode()})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "bad_request")
    assert HEADER in error_of(answer)["message"]
    assert " 5" in error_of(answer)["message"]
    assert rig.view(CHAT)["phase"] == ""  # nothing was started for it


def test_callers_may_lower_but_not_raise_unless_the_server_lets_them(rig):
    refused = rig.chat(CHAT, headers={HEADER: "1"})
    assert refused.status_code == 400
    assert "priority_max" in error_of(refused)["message"]
    assert rig.chat(CHAT, headers={HEADER: "-1"}).status_code == 200


def test_the_more_urgent_of_two_that_wait_is_served_first(make_rig):
    rig = make_rig(
        env={"VLLAMA_MEMORY_LIMIT": "400MiB", "VLLAMA_PRIORITY_MAX": "5", "VLLAMA_BUSY_GRACE_S": "600"}
    )
    done: list[str] = []

    def ask(path: str, body: dict, headers: dict | None = None) -> None:
        answer = rig.http.post(path, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        done.append(body["model"])

    with rig.stream(CHAT, gate="a") as (_, lines):
        next(lines)
        low = Thread(target=ask, args=("/v1/embeddings", {"model": EMBED, "input": "x"}))
        low.start()
        rig.until(EMBED, phase="queued")
        body = {"model": RERANK, "query": "x", "documents": ["y"]}
        high = Thread(target=ask, args=("/v1/rerank", body, {HEADER: "3"}))
        high.start()
        rig.until(RERANK, phase="queued", priority=3)
        rig.let(CHAT, "a")
        for _ in lines:
            pass
    high.join()
    low.join()
    assert done == [RERANK, EMBED]
    told = rig.http.get("/debug/explain", params={"model": RERANK}).json()["explanations"]
    wait = next(e for e in told if e["kind"] == "wait")
    assert wait["priority"] == 3
    assert "priority 3" in wait["words"]
