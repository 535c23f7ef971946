"""Recorded journals, folded by today's code: the end state must be the recorded one, in every field that was recorded."""

import json
from pathlib import Path
from typing import Any

import pytest

from vllama.actors.codec import encode
from vllama.actors.journal import load

RECORDED = sorted((Path(__file__).parent / "journals").glob("*.jsonl"))


def agrees(recorded: Any, today: Any) -> bool:
    """Fields that a newer vllama has added are its own affair."""
    if isinstance(recorded, dict):
        return all(name in today and agrees(value, today[name]) for name, value in recorded.items())
    if isinstance(recorded, list):
        return len(recorded) == len(today) and all(map(agrees, recorded, today))
    return bool(recorded == today)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_fold_ends_in_the_recorded_state(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    *journal, end = lines
    states, _ = load(journal)
    for actor, recorded in end["states"].items():
        today = encode(states.state(actor))
        assert agrees(recorded, today), f"{actor}:\n{recorded}\n{today}"


def test_there_are_recorded_journals() -> None:
    assert RECORDED
