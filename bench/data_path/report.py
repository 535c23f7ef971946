"""From the rounds' samples to named figures and a table. A ratio is taken within each round, then the median of them."""

import statistics
from collections.abc import Mapping, Sequence

Samples = Mapping[str, Sequence[Mapping[str, float]]]  # by "subject phase", one a round

# figure: (subject, phase, key, what it is held against)
RATIOS = {
    "cpu_per_request_vs_nginx": ("vllama", "c32", "cpu_us", "nginx"),
    "cpu_per_request_100k_vs_nginx": ("vllama", "c32_100k", "cpu_us", "nginx"),
    "cpu_per_chunk_vs_nginx": ("vllama", "streams", "cpu_us", "nginx"),
    "p99_c32_vs_nginx": ("vllama", "c32", "p99_ms", "nginx"),
    "flat_1000_models": ("flat one", "c32", "cpu_us", "flat alone"),
    "flat_1000_models_spread": ("flat spread", "c32", "cpu_us", "flat alone"),
}
# These say by how much the other costs less: at most 1/20 of the recipe is at most 0.05.
SHARES = {
    "cpu_per_request_vs_recipe": ("vllama", "c32", "cpu_us", "recipe"),
    "cpu_per_request_vs_litellm": ("vllama", "c32", "cpu_us", "litellm"),
    "cpu_per_chunk_vs_recipe": ("vllama", "streams", "cpu_us", "recipe"),
    "cpu_per_chunk_vs_litellm": ("vllama", "streams", "cpu_us", "litellm"),
}
# head: (phase, key, digits)
COLUMNS = {
    "us/request": ("c32", "cpu_us", 1),
    "100k us/request": ("c32_100k", "cpu_us", 1),
    "us/chunk": ("streams", "cpu_us", 1),
    "p50 c1 ms": ("c1", "p50_ms", 3),
    "p99 c1 ms": ("c1", "p99_ms", 3),
    "p50 c32 ms": ("c32", "p50_ms", 2),
    "p99 c32 ms": ("c32", "p99_ms", 2),
    "requests/s": ("c32", "per_s", 0),
    "its core %": ("c32", "cpu_share", 2),
    "chunks/s": ("streams", "per_s", 0),
    "delay p50 ms": ("streams", "p50_ms", 1),
    "delay p99 ms": ("streams", "p99_ms", 1),
    "KB/stream": ("idle", "kb", 1),
}


def figures(samples: Samples) -> dict[str, float]:
    """What the goals name, as far as it was measured; and every absolute figure, as subject.phase.key."""
    found: dict[str, float] = {}
    for name, (subject, phase, key, other) in {**RATIOS, **SHARES}.items():
        pairs = zip(samples.get(f"{subject} {phase}", ()), samples.get(f"{other} {phase}", ()), strict=False)
        if ratios := [mine[key] / theirs[key] for mine, theirs in pairs]:
            found[name] = round(statistics.median(ratios), 4)
    pairs = zip(samples.get("vllama c1", ()), samples.get("direct c1", ()), strict=False)
    if added := [mine["p50_ms"] - theirs["p50_ms"] for mine, theirs in pairs]:
        found["added_p50_ms_c1"] = round(statistics.median(added), 3)
    if "vllama streams" in samples:
        found["chunk_delay_p99_ms"] = round(middle(samples["vllama streams"], "p99_ms"), 2)
        found["chunks_per_s"] = round(middle(samples["vllama streams"], "per_s"), 1)
    if "vllama idle" in samples:
        found["kb_per_idle_stream"] = round(middle(samples["vllama idle"], "kb"), 1)
    for name, rounds in samples.items():
        for key in rounds[0]:
            found[f"{name.replace(' ', '.')}.{key}"] = round(middle(rounds, key), 4)
    return found


def middle(rounds: Sequence[Mapping[str, float]], key: str) -> float:
    return statistics.median(one[key] for one in rounds)


def spread(rounds: Sequence[Mapping[str, float]], key: str) -> float:
    """How far the rounds lie apart, of their median."""
    values = [one[key] for one in rounds]
    return (max(values) - min(values)) / statistics.median(values) if any(values) else 0.0


def table(samples: Samples) -> str:
    """One line a subject: medians, and for the CPU how far the rounds lie apart."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for subject in dict.fromkeys(name.rpartition(" ")[0] for name in samples):
        cells = []
        for phase, key, digits in COLUMNS.values():
            rounds = samples.get(f"{subject} {phase}")
            if not rounds:
                cells.append("")
                continue
            text = f"{middle(rounds, key):.{digits}f}"
            if key == "cpu_us" and len(rounds) > 1:
                text += f" (±{spread(rounds, key) * 50:.0f}%)"
            cells.append(text)
        lines.append(f"| {subject} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
