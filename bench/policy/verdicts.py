"""What the rows say of the bounds that the policy is held to."""

from collections.abc import Iterator, Sequence
from typing import Any

from bench.policy.runs import MAX_WAIT_S
from bench.policy.traces import QUEUE_MAX

CONTENDED, CONTENDED_LOAD_MAX, HALF = 0.4, 0.8, 0.5
NO_WORSE = 1.02
OWN, REFERENCE, HINDSIGHT, HALFWAY = "cost", "clairvoyant", "foresight", "lru-level-1"
BASELINES = ("lru", "ollama", "llama-swap", "ttl")

Row = dict[str, Any]


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """One line a bound, and one for each row that misses it."""
    whole: dict[str, dict[str, Row]] = {}
    for row in rows:
        whole.setdefault(row["trace"], {})[row["policy"]] = row
    whole = {name: found for name, found in whole.items() if {OWN, "lru"} <= found.keys()}
    yield from _contended(whole, REFERENCE)
    yield from _contended(whole, HINDSIGHT)
    yield from _late(whole)
    yield from _no_worse(whole)
    for name, found in whole.items():
        if name.startswith("two-hot"):
            yield _two_hot(name, found[OWN])
        if name.startswith("scan"):
            yield f"{name}: hot ones made to go {found[OWN]['hot_evicted']} times (lru: {found['lru']['hot_evicted']})"
        if name.startswith("overload"):
            yield _overload(name, found)


def contended(found: dict[str, Row], reference: str = REFERENCE) -> bool:
    lru = found["lru"]
    gain = reference in found and found[reference]["wait_mean_s"] <= CONTENDED * lru["wait_mean_s"]
    return gain and bool(lru["load"] <= CONTENDED_LOAD_MAX)


def bound_s(row: Row) -> float:
    """What the p99 of a contended row may come to: `max_wait_s`, the longest drain and one switch, as this run had them."""
    return float(MAX_WAIT_S + row["drain_max_s"] + row["switch_max_s"])


def _contended(whole: dict[str, dict[str, Row]], reference: str) -> Iterator[str]:
    held = 0
    picked = {name: found for name, found in whole.items() if contended(found, reference)}
    for name, found in picked.items():
        own, lru = found[OWN], found["lru"]
        ratio = own["wait_mean_s"] / lru["wait_mean_s"]
        fine = ratio <= HALF and own["wait_p99_s"] <= bound_s(own)
        held += fine
        yield (
            f"contended by {reference}, {name}: mean {ratio:.2f} of lru's (at most {HALF}), "
            f"p99 {own['wait_p99_s']:.0f} s (at most {bound_s(own):.0f}){'' if fine else '  MISSED'}"
        )
    yield f"contended by {reference}: {held} of {len(picked)} rows hold"


def _late(whole: dict[str, dict[str, Row]]) -> Iterator[str]:
    """The same bound on p99, asked of the rows that are not contended."""
    others = {
        name: found[OWN]
        for name, found in whole.items()
        if not contended(found) and not contended(found, HINDSIGHT)
    }
    late = [
        f"{name} ({row['wait_p99_s']:.0f} s, {bound_s(row):.0f})"
        for name, row in others.items()
        if row["wait_p99_s"] > bound_s(row)
    ]
    yield f"no bound: p99 beyond that of a contended row on {', '.join(late) or 'none'} of the {len(others)} others"


def _no_worse(whole: dict[str, dict[str, Row]]) -> Iterator[str]:
    missed = 0
    for name, found in whole.items():
        own = found[OWN]["wait_mean_s"]
        for policy in (policy for policy in BASELINES if policy in found):
            theirs = found[policy]["wait_mean_s"]
            if own > NO_WORSE * theirs:
                missed += 1
                yield f"{name}: mean {own:.3g} s is {own / max(theirs, 1e-9):.2f} of {policy}'s  MISSED"
    yield f"all rows: {missed} means above {NO_WORSE} of a baseline's, of {len(whole)} traces"
    behind = [
        name
        for name, found in whole.items()
        if HALFWAY in found and found[OWN]["wait_mean_s"] > NO_WORSE * found[HALFWAY]["wait_mean_s"]
    ]
    yield f"no bound: {HALFWAY} has the better mean on {', '.join(behind) or 'no trace'}"


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
    own = found[OWN]
    return (
        f"{name}: {own['refused']} of {own['requests']} refused (at most {QUEUE_MAX} wait for a model), {own['unserved']} "
        f"without an end; the least served model's share of its requests over the most served one's: {shares}"
    )
