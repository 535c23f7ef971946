"""The Grafana dashboard asks for metrics that exist, by labels that they have, and its panels lie side by side."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from vllama.api.metrics.figures import GROUPS

FILE = Path(__file__).resolve().parent.parent / "docs" / "grafana" / "vllama.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]
FIGURES = {figure.name: figure for group in GROUPS.values() for figure in group}
NAME = re.compile(r"\b((?:vllama_|vllm:)\w+)(?:\{([^}]*)\})?")
SUFFIXES = ("_bucket", "_sum", "_count")
ADDED = {"instance", "job", "le"}  # by Prometheus, and by every histogram


def known(name: str) -> str | None:
    """The metric that a name in a query belongs to."""
    if name in FIGURES and FIGURES[name].kind != "histogram":
        return name
    base = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), "")
    return base if base in FIGURES and FIGURES[base].kind == "histogram" else None


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_what_there_is(query: str) -> None:
    asked = [(name, labels) for name, labels in NAME.findall(query) if name.startswith("vllama_")]
    for name, labels in asked:
        base = known(name)
        assert base is not None, f"{name} is no metric of ours"
        has = {*FIGURES[base].labels, *ADDED}
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels)) <= has
        for grouped in re.findall(r"\bby \(([^)]*)\)", query):
            assert {label.strip() for label in grouped.split(",")} <= has


def test_vllms_own_names_are_vllms() -> None:
    asked = {name for query in QUERIES for name, _ in NAME.findall(query) if name.startswith("vllm:")}
    assert asked
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("vLLM is not installed: its names cannot be looked up")
    folder = Path(next(iter(spec.submodule_search_locations))) / "v1" / "metrics"
    source = (folder / "loggers.py").read_text(encoding="utf-8")
    for name in asked:
        base = re.sub(r"_(bucket|sum|count|total)$", "", name)
        assert f'"{base}"' in source or f'"{name}"' in source, name


def test_a_query_for_what_is_not_there_is_seen() -> None:
    assert known("vllama_model_phase") == "vllama_model_phase"
    assert known("vllama_wait_seconds_bucket") == "vllama_wait_seconds"
    assert known("vllama_wait_seconds") is None
    assert known("vllama_model_phase_count") is None


def test_it_is_a_dashboard() -> None:
    assert {"uid", "title", "panels", "templating", "schemaVersion"} <= DASHBOARD.keys()
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = {name for query in QUERIES for name in re.findall(r"\$(\w+)", query)} - {"__rate_interval"}
    assert used <= variables
    numbers = [panel["id"] for panel in PANELS]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert all(panel["title"] for panel in PANELS)
