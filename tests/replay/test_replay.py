"""Recorded journals, folded by today's code: the end state must be the recorded one."""

import json
from pathlib import Path

import pytest

from vllama.actors.codec import decode
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.instance_state import State
from vllama.actors.core.state import BROKER
from vllama.actors.journal import load

RECORDED = sorted((Path(__file__).parent / "journals").glob("*.jsonl"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_fold_ends_in_the_recorded_state(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    *journal, end = lines
    states, _ = load(journal)
    for actor, recorded in end["states"].items():
        assert states.state(actor) == decode(BrokerState if actor == BROKER else State, recorded)


def test_there_are_recorded_journals() -> None:
    assert RECORDED
