"""`vllama bench`: what is measured is there, of each kind of model, and the model is awake when it ends."""

import json

import pytest

from tests.api.caches import CHAT, EMBED, RERANK
from tests.api.rig import Rig
from vllama.cli.bench.command import _came


def test_a_chat_model_is_measured_alone_together_and_through_its_sleeps(rig: Rig) -> None:
    done = rig.server.cli("bench", "Chat", "--streams", "3", "--tokens", "4", "--rounds", "2", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["model"], report["kind"], report["first"]["state"]) == (CHAT, "chat", "cold")
    assert report["first"]["waited_s"] > 0
    alone, together = report["runs"]
    assert (alone["streams"], together["streams"]) == (1, 3)
    assert (alone["tokens"], together["tokens"]) == (2 * 4, 3 * 4)
    for run in report["runs"]:
        assert run["tokens_per_s"] > 0
        assert run["first_token_s"] > 0
    assert [(each["asked"], each["level"], each["came"]) for each in report["switches"]] == [
        (1, 1, "wake"), (2, 2, "wake"),
    ]  # fmt: skip
    assert all(each["sleep_s"] > 0 and each["wake_s"] > 0 for each in report["switches"])
    assert rig.view(CHAT)["phase"] == "awake"
    assert rig.stats(CHAT)["sleeps"] == 2


@pytest.mark.parametrize(("model", "column"), [(EMBED, "EMBEDDINGS/S"), (RERANK, "DOCUMENTS/S")])
def test_what_embeds_or_ranks_is_measured_in_texts(rig: Rig, model: str, column: str) -> None:
    done = rig.server.cli("bench", model, "--streams", "2", "--batch", "3", "--rounds", "1", "--no-switch")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{model} (")
    assert "was started" in lines[0]
    assert column in lines[2]
    assert [line.split()[:2] for line in lines[3:]] == [["1", "3"], ["2", "3"]]
    assert rig.view(model)["phase"] == "awake"
    assert rig.stats(model)["sleeps"] == 0


def test_a_sleep_that_fails_is_the_servers_word(make_rig) -> None:
    rig = make_rig("fail_sleep")
    done = rig.server.cli("bench", CHAT, "--streams", "1", "--tokens", "3", "--rounds", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "POST /sleep" in done.stderr


def test_a_level_that_was_not_reached_is_said():
    reached = {"asked": 2, "level": 2, "note": ""}
    assert _came(reached) == ""
    assert _came(reached | {"level": 3}) == "it was stopped, and started again"
    assert _came(reached | {"level": 3, "note": "level 2 is unsafe"}) == "level 2 is unsafe"


def test_what_is_not_there_is_said(rig: Rig) -> None:
    done = rig.server.cli("bench", "tiny/none")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
