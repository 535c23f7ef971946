"""design/instance.md is what the code does today."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from tables import PAGE, page  # noqa: E402 - found by the line above


def test_the_page_of_the_instance_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run tools/tables.py and look at what has changed"
