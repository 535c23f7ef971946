"""The pages that say which test holds what name what is there, and leave no row without a holder."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
DESIGN = ROOT / "design"
CITED = re.compile(r"`((?:\w+/)?test_\w+\*?\.py|\w+/(?:world|laws|spellings)\.py)(?:::(test_\w+)(\.\.\.)?)?`")
OTHER = re.compile(r"`((?:bench|tools|docs)/[\w/.-]+)`")
BENCH = re.compile(r"`make bench-(\w+)")
ROW = re.compile(r"^\| (.*) \| (.*) \|$", re.MULTILINE)
HELD = re.compile(r"`|\bbench\b|\]\(")
PAGES = ("specification.md", "specification-further.md", "weaknesses.md")
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


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    text = (DESIGN / page).read_text(encoding="utf-8")
    assert len(CITED.findall(text)) > 30
    assert missing(text) == []
    assert (
        re.findall(r"`(?:\w+/)?test_\w+\.py[^`]*`", CITED.sub("", text)) == []
    )  # in no form that is not read here


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_bench_that_a_page_names_is_there(page: str) -> None:
    text = (DESIGN / page).read_text(encoding="utf-8")
    assert [name for name in OTHER.findall(text) if not (ROOT / name).exists() and "/out/" not in name] == []
    benches = re.search(r"^BENCHES := (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert benches
    assert set(BENCH.findall(text)) <= set(benches.group(1).split())


@pytest.mark.parametrize("page", PAGES[:2])
def test_each_line_that_was_asked_for_has_its_holder(page: str) -> None:
    rows = [row for row in ROW.findall((DESIGN / page).read_text(encoding="utf-8")) if row[0] != "asked for"]
    assert len(rows) > 80
    assert [asked for asked, held in rows if not HELD.search(held)] == []


def test_a_test_that_is_not_there_is_seen() -> None:
    page = "`test_pages.py::test_a_test...` `nowhere/test_x.py` `test_pages.py::test_every_test`"
    assert missing(page) == ["nowhere/test_x.py::", "test_pages.py::test_every_test"]


def test_each_weakness_has_its_row() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", (DESIGN / "weaknesses.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 32))
    assert [number for number, held in rows if not NAMED.search(held)] == []
