"""`keep_alive` and `ttl` in the body of any data route: what they mean, that the engine sees neither, that the instance hears."""

import json
import random
from typing import Any

import pytest

from tests.api.caches import CHAT, EMBED
from tests.api.rig import Rig, chat_body, error_of
from vllama.api.jsonscan import JsonScan
from vllama.api.keep import FOREVER, LONGEST_S, keep_of, seconds_of
from vllama.errors import BadRequest

OURS = ("keep_alive", "ttl")


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (0, 0), (300, 300), (1.5, 1.5), (-1, FOREVER), (-0.5, FOREVER), (LONGEST_S * 2, FOREVER), (10**400, FOREVER),
        ("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("300ms", 0.3), ("2us", 2e-6), ("-1m", FOREVER), ("0", 0), ("-1", FOREVER),
        ("24h0m0s", 86400), (" 10s ", 10),
    ],
)  # fmt: skip
def test_what_is_said_in_seconds(said: object, seconds: float) -> None:
    assert seconds_of("keep_alive", said) == pytest.approx(seconds)


@pytest.mark.parametrize("said", ["", "soon", "5 m", "5x", "m", "1h-3m", True, [], {}, float("nan"), "nan"])
def test_what_is_no_time_is_refused_by_its_name(said: object) -> None:
    with pytest.raises(BadRequest, match="`ttl` must be a number of seconds"):
        seconds_of("ttl", said)


def test_keep_alive_goes_before_ttl_and_null_says_nothing() -> None:
    assert keep_of({"ttl": 5, "keep_alive": 7}) == 7
    assert keep_of({"ttl": 5, "keep_alive": None}) == 5
    assert keep_of({"keep_alive": None}) is None
    assert keep_of({}) is None


def test_the_pairs_are_cut_out_wherever_they_stand() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        pairs: list[tuple[str, Any]] = [
            ("model", "é/x"),
            ("a", {"keep_alive": 1, "ttl": [1]}),
            ("ü", [1, "x,y"]),
        ]
        pairs += [("keep_alive", rng.choice([5, "5m", -1, None, "ü"]))] * rng.choice([0, 1])
        pairs += [("ttl", rng.choice([1.5, None, "x"]))] * rng.choice([0, 1, 2])
        rng.shuffle(pairs)
        texts = [f"{_text(key, rng)}{rng.choice([':', ' : '])}{_text(value, rng)}" for key, value in pairs]
        body = ("{" + rng.choice([", ", ",", " ,\n"]).join(texts) + " }").encode()
        scan, at = JsonScan(), 0
        while at < len(body):
            size = rng.randint(1, 30)
            scan.feed(body[at : at + size])
            at += size
        assert scan.end() == "é/x"
        assert scan.said == {key: value for key, value in pairs if key in OURS}
        for start, end in reversed(scan.taken):
            body = body[:start] + body[end:]
        assert json.loads(body) == {key: value for key, value in pairs if key not in OURS}


def _text(value: object, rng: random.Random) -> str:
    return json.dumps(value, ensure_ascii=rng.random() < 0.5)


@pytest.mark.parametrize("filler", ["", "x" * 2**17, "é" * 2**17], ids=["short", "long", "long, not ASCII"])
def test_the_engine_sees_neither_and_nothing_else_is_changed(rig: Rig, filler: str) -> None:
    body = {"model": CHAT, "ttl": 5, "keep_alive": "10m", "prompt": filler, "b": {"ttl": 1}}
    answer = rig.http.post("/tokenize", content=json.dumps(body, ensure_ascii=False).encode()).json()
    seen = json.dumps({key: value for key, value in body.items() if key not in OURS}, ensure_ascii=False)
    assert answer["bytes"] == len(seen.encode())
    assert rig.view(CHAT)["idle_after_s"] == 600


def test_an_alias_and_a_time_at_once(rig: Rig) -> None:
    """Two edits of one body."""
    body = {"keep_alive": 60, "model": "chat", "prompt": "y" * 2**17, "ttl": 3}
    answer = rig.http.post("/tokenize", json=body).json()
    assert answer["bytes"] == len(
        json.dumps({"model": CHAT, "prompt": body["prompt"]}, separators=(",", ":"))
    )


def test_how_long_a_model_stays_is_what_was_said_last(rig: Rig) -> None:
    assert rig.chat(CHAT, keep_alive=-1).status_code == 200
    assert rig.view(CHAT)["idle_after_s"] is None
    assert rig.chat(CHAT).status_code == 200
    assert rig.view(CHAT)["idle_after_s"] is None
    assert rig.chat(CHAT, ttl=3600).status_code == 200
    assert rig.view(CHAT)["idle_after_s"] == 3600
    assert rig.kinds(CHAT).count("KeepAliveSet") == 2


def test_at_zero_it_sleeps_when_the_answer_is_out(rig: Rig) -> None:
    with rig.stream(CHAT, gate="g", keep_alive=0) as (answer, lines):
        next(lines)
        assert answer.status_code == 200
        assert rig.view(CHAT)["phase"] == "awake"
        rig.waits_at(CHAT, "g")
        rig.let(CHAT, "g")
        assert list(lines)[-1] == "[DONE]"
    rig.until(CHAT, phase="asleep", level=2, idle_after_s=1800.0)
    assert rig.chat(CHAT).status_code == 200  # which wakes it, to stay for as long as the setting says
    assert rig.view(CHAT)["phase"] == "awake"


def test_embeddings_take_it_too(rig: Rig) -> None:
    answer = rig.http.post("/v1/embeddings", json={"model": EMBED, "input": "x", "keep_alive": "0s"})
    assert answer.status_code == 200
    rig.until(EMBED, phase="asleep")


def test_a_time_that_is_none_starts_nothing(rig: Rig) -> None:
    answer = rig.http.post("/v1/chat/completions", json=chat_body(CHAT, keep_alive="soon"))
    assert (answer.status_code, error_of(answer)["code"]) == (400, "bad_request")
    assert "keep_alive" in error_of(answer)["message"]
    long = rig.http.post("/tokenize", json={"model": CHAT, "ttl": [1], "prompt": "x" * 2**17})
    assert long.status_code == 400
    assert rig.view(CHAT)["phase"] == ""
