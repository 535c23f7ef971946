"""What the rows say of the bounds that the policy is held to."""

from collections.abc import Iterator, Sequence
from typing import Any

from bench.policy.runs import MAX_WAIT_S

CONTENDED, CONTENDED_LOAD_MAX, HALF = 0.4, 0.8, 0.5
NO_WORSE = 1.02
OWN, REFERENCE, HALFWAY = "cost", "clairvoyant", "lru-level-1"

Row = dict[str, Any]


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """One line a bound, and one for each row that misses it."""
    by_trace: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_trace.setdefault(row["trace"], {})[row["policy"]] = row
    whole = {name: found for name, found in by_trace.items() if {OWN, "lru", REFERENCE} <= found.keys()}
    yield from _contended(whole)
    yield from _no_worse(whole)
    for name, found in whole.items():
        if name.startswith("two-hot"):
            yield _two_hot(name, found[OWN])
        if name.startswith("scan"):
            yield f"{name}: hot ones made to go {found[OWN]['hot_evicted']} times (lru: {found['lru']['hot_evicted']})"
        if name.startswith("overload"):
            yield _overload(name, found)


def contended(found: dict[str, Row]) -> bool:
    lru, reference = found["lru"], found[REFERENCE]
    return bool(
        reference["wait_mean_s"] <= CONTENDED * lru["wait_mean_s"] and lru["load"] <= CONTENDED_LOAD_MAX
    )


def _contended(whole: dict[str, dict[str, Row]]) -> Iterator[str]:
    held = 0
    picked = {name: found for name, found in whole.items() if contended(found)}
    for name, found in picked.items():
        own, lru = found[OWN], found["lru"]
        ratio = own["wait_mean_s"] / lru["wait_mean_s"]
        bound = MAX_WAIT_S + own["drain_max_s"] + own["switch_max_s"]
        fine = ratio <= HALF and own["wait_p99_s"] <= bound
        held += fine
        yield (
            f"contended {name}: mean {ratio:.2f} of lru's (at most {HALF}), "
            f"p99 {own['wait_p99_s']:.0f} s (at most {bound:.0f}){'' if fine else '  MISSED'}"
        )
    yield f"contended rows: {held} of {len(picked)} hold"


def _no_worse(whole: dict[str, dict[str, Row]]) -> Iterator[str]:
    missed = 0
    for name, found in whole.items():
        own = found[OWN]["wait_mean_s"]
        for policy, row in found.items():
            if policy not in (OWN, REFERENCE, HALFWAY) and own > NO_WORSE * row["wait_mean_s"]:
                missed += 1
                yield f"{name}: mean {own:.2f} s is {own / row['wait_mean_s']:.2f} of {policy}'s  MISSED"
    behind = [
        n
        for n, f in whole.items()
        if HALFWAY in f and f[OWN]["wait_mean_s"] > NO_WORSE * f[HALFWAY]["wait_mean_s"]
    ]
    yield f"no bound: plain LRU with every model at level 1 ({HALFWAY}) has the better mean on {', '.join(behind) or 'no trace'}"
    yield f"all rows: {missed} means above {NO_WORSE} of a baseline's, of {len(whole)} traces"


def _two_hot(name: str, own: Row) -> str:
    part = own["throughput"] / own["capacity"]
    bound = 0.85 * own["quantum_s"] / (own["quantum_s"] + own["switch_s"])
    least = min(own["served_by_model"]) / max(own["served_by_model"])
    fine = "" if part >= bound and least > 0.8 else "  MISSED"
    return (
        f"{name}: throughput {part:.2f} of what the device can serve (at least {bound:.2f}: quantum "
        f"{own['quantum_s']:.0f} s, switch {own['switch_s']:.1f} s), the lesser served {least:.2f} of the greater{fine}"
    )


def _overload(name: str, found: dict[str, Row]) -> str:
    shares = ", ".join(
        f"{policy} {row['share_least']:.2f} ({row['refused']} refused)" for policy, row in found.items()
    )
    return f"{name}: the least served model's share of its requests over the most served one's: {shares}"
