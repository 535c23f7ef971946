"""Prometheus' text as families: read, labelled, merged, written. No engine can break the page: a line that is none is left out.

All samples of a family must stand together, whoever they come from: so the families of several engines and our own are merged
by name. Both ways of writing are served, the text format and OpenMetrics; engines are read as text alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

_SAMPLE = re.compile(
    r"([a-zA-Z_:][a-zA-Z0-9_:]*)"  # name
    r'(?:\{((?:\s*[a-zA-Z_][a-zA-Z0-9_]*\s*=\s*"(?:[^"\\\n]|\\.)*"\s*,?)*)\s*\})?'  # labels
    r"[ \t]+([-+]?(?:[0-9.]+(?:[eE][-+]?[0-9]+)?|Inf|NaN))"  # value
    r"(?:[ \t]+-?[0-9]+)?[ \t]*"  # a time, which is not passed on
)
_OWN_MODEL = re.compile(r'(^|,)\s*model\s*=(?=\s*")')
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_SUFFIXES = ("_total", "_bucket", "_sum", "_count", "_created")
_KINDS = ("counter", "gauge", "histogram", "summary")


@dataclass
class Family:
    """One metric: its samples are whole lines."""

    name: str
    kind: str = "untyped"
    help: str = ""
    lines: list[str] = field(default_factory=list)


def sample(name: str, labels: Mapping[str, str], value: float) -> str:
    """One line."""
    if not labels:
        return f"{name} {value!r}"
    inner = ",".join([f'{label}="{_escaped(text)}"' for label, text in labels.items()])
    return f"{name}{{{inner}}} {value!r}"


def plain(text: str) -> list[Family]:
    """What the client library has written, as text."""
    found: list[Family] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, _, words = line[7:].partition(" ")
            found.append(Family(name, help=words))
        elif line.startswith("# TYPE "):
            found[-1].kind = line.rpartition(" ")[2]
        elif line and not line.startswith("#"):
            found[-1].lines.append(line)
    return found


def engines(text: str, model: str) -> list[Family]:
    """What an engine has written, as text, with the label `model` added to each sample."""
    label = f'model="{_escaped(model)}"'
    found: dict[str, Family] = {}
    helps: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            _, word, name, words = (*line.split(" ", 3), "", "", "")[:4]
            if word == "HELP":
                helps[name] = words
            elif word == "TYPE" and name not in found:
                found[name] = Family(name, words if words in _KINDS else "untyped", helps.get(name, ""))
        elif (match := _SAMPLE.fullmatch(line)) is not None:
            name, labels, value = match.groups()
            family = found.get(name) or _of(name, found)
            family.lines.append(f"{name}{{{_joined(label, labels)}}} {value}")
    # When each counter began is what a client library adds by itself: a third of the page, and of no use in a rate.
    return [f for f in found.values() if f.lines and not (f.kind == "gauge" and f.name.endswith("_created"))]


def merged(families: Iterable[Family]) -> dict[str, Family]:
    """By name. Of two kinds under one name the first is kept: a page with both could not be read."""
    pages: dict[str, Family] = {}
    for family in families:
        known = pages.get(family.name)
        if known is None:
            pages[family.name] = Family(family.name, family.kind, family.help, list(family.lines))
        elif known.kind == family.kind:
            known.lines += family.lines
    return pages


def as_open(family: Family) -> Family:
    """A family that was read as text, in OpenMetrics' terms: a counter's family has not its suffix."""
    name, kind = family.name, family.kind
    if kind == "counter" and name.endswith("_total"):
        name = name.removesuffix("_total")
    elif kind in ("counter", "untyped"):
        kind = "unknown"
    return Family(name, kind, family.help.replace('"', r"\""), family.lines)


def written(families: Iterable[Family], *, open_metrics: bool) -> str:
    """The page."""
    parts = [line for family in families for line in _lines(family)]
    return "\n".join([*parts, "# EOF"] if open_metrics else parts) + "\n"


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help or 'Of an engine, which says no more.'}"
    yield f"# TYPE {family.name} {family.kind}"
    yield from family.lines


def _of(name: str, found: dict[str, Family]) -> Family:
    """The family that a sample belongs to; one that nothing was said of is its own."""
    for suffix in _SUFFIXES:
        if name.endswith(suffix) and (family := found.get(name.removesuffix(suffix))) is not None:
            return family
    return found.setdefault(name, Family(name))


def _joined(label: str, labels: str | None) -> str:
    labels = (labels or "").strip().rstrip(",")
    if "model" in labels and _OWN_MODEL.search(
        _QUOTED.sub(lambda m: '"' + "x" * (len(m[0]) - 2) + '"', labels)
    ):
        labels = _renamed(labels)
    return f"{label},{labels}" if labels else label


def _renamed(labels: str) -> str:
    """A label `model` of the engine's own makes way, as Prometheus itself would have it."""
    parts = re.findall(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*("(?:[^"\\\n]|\\.)*")', labels)
    return ",".join(f"{'exported_model' if name == 'model' else name}={value}" for name, value in parts)


def _escaped(value: str) -> str:
    if "\\" not in value and '"' not in value and "\n" not in value:
        return value
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
