"""The pages that say which test holds what name tests that are there, and leave no row without one."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
DESIGN = TESTS.parent / "design"
CITED = re.compile(r"`((?:\w+/)?test_\w+\*?\.py|\w+/(?:world|laws|spellings)\.py)(?:::(test_\w+)(\.\.\.)?)?`")
NAMED = re.compile(r"`[\w/]+\.py::test_\w+(?:\.\.\.)?`")


def missing(page: str) -> list[str]:
    """What a page names and the tests have not. A name that ends with three dots is a beginning."""
    absent = []
    for path, name, begins in CITED.findall(page):
        files = list(TESTS.glob(path))
        text = "\n".join(file.read_text(encoding="utf-8") for file in files)
        if not files or (name and not re.search(rf"def {name}{'' if begins else '[(]'}", text)):
            absent.append(f"{path}::{name}")
    return absent


@pytest.mark.parametrize("page", ["specification.md", "weaknesses.md"])
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    text = (DESIGN / page).read_text(encoding="utf-8")
    assert len(CITED.findall(text)) > 30
    assert missing(text) == []


def test_a_test_that_is_not_there_is_seen() -> None:
    page = "`test_pages.py::test_a_test...` `nowhere/test_x.py` `test_pages.py::test_every_test`"
    assert missing(page) == ["nowhere/test_x.py::", "test_pages.py::test_every_test"]


def test_each_weakness_has_its_row() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", (DESIGN / "weaknesses.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 32))
    assert [number for number, held in rows if not NAMED.search(held)] == []
