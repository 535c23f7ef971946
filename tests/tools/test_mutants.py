"""Every mutant still changes a line that is there: else it would tell nothing, and nobody would know."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from mutants import CORE, MUTANTS  # noqa: E402 - found by the line above


@pytest.mark.parametrize(("file", "old", "new", "forgets"), MUTANTS, ids=[mutant[3] for mutant in MUTANTS])
def test_its_line_is_there_once(file: str, old: str, new: str, forgets: str) -> None:
    text = (ROOT / CORE / file).read_text(encoding="utf-8")
    assert text.count(old) == 1, forgets
    compile(text.replace(old, new), file, "exec")
