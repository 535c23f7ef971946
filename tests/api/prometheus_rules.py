"""Prometheus' rules for names, as `promtool check metrics` holds them: written down here so that they hold without it."""

import re
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

KINDS = ("counter", "gauge", "histogram", "summary", "untyped")
SHORT_UNITS = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"}
NO_BASE_UNITS = {
    *("milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "weeks"),
    *(
        "bits",
        "kilobytes",
        "megabytes",
        "gigabytes",
        "kibibytes",
        "mebibytes",
        "gibibytes",
        "percent",
        "celsius_f",
    ),
}


def broken_rules(page: str) -> Iterator[str]:
    """What is wrong with the metrics of a page in the text format."""
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            yield from _of_a_name(name, kind)
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for family in text_string_to_metric_families(page):
        if not family.documentation.strip():
            yield f"{family.name}: no help text"
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            if key in seen:
                yield f"{sample.name}: {sample.labels} is there twice"
            seen.add(key)
            if "le" in sample.labels and family.type != "histogram":
                yield f"{sample.name}: the label le is for histograms"


def _of_a_name(name: str, kind: str) -> Iterator[str]:
    words = name.split("_")
    if (kind == "counter") != name.endswith("_total"):
        yield f"{name}: _total is for counters, and every counter has it"
    if kind not in ("histogram", "summary") and words[-1] in ("count", "sum", "bucket"):
        yield f"{name}: _{words[-1]} is for histograms and summaries"
    if found := set(words) & set(KINDS):
        yield f"{name}: the kind ({', '.join(found)}) does not belong into the name"
    if ":" in name:
        yield f"{name}: colons are for recording rules"
    if re.search(r"[a-z][A-Z]", name):
        yield f"{name}: snake_case"
    if found := set(words) & (SHORT_UNITS | NO_BASE_UNITS):
        yield f"{name}: {', '.join(found)} is no base unit, written out"
