"""`make bench-policy [TRACE=file.csv]`: every policy on every trace, as a table and as bench/out/policy.json.

TRACE is a CSV like Azure's (TIMESTAMP,ContextTokens,GeneratedTokens) that is cut into windows instead. `--only NAME` (part of a
trace's name) and `--policies NAME,NAME` run a part of the table, `--seed N` the same with other arrivals, `--million` one run of
a million requests.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from bench.policy import table
from bench.policy.runs import POLICIES, row
from bench.policy.traces import AZURE
from bench.policy.verdicts import verdicts

OUT = Path(__file__).resolve().parents[1] / "out" / "policy.json"
WORKERS = 2
COLUMNS = (
    "trace",
    "models",
    "devices",
    "policy",
    "swaps",
    "wait_mean_s",
    "wait_p99_s",
    "throughput",
    "load",
    "refused",
)


def one(path: Path, seed: int, name: str, policy: str) -> dict[str, Any]:
    return {**row(table.rows(path, seed)[name](), policy), "trace": name}


def run(path: Path, seed: int, only: str, policies: Sequence[str]) -> list[dict[str, Any]]:
    """All rows, in the table's order."""
    jobs = [(name, policy) for name in table.rows(path) if only in name for policy in policies]
    with ProcessPoolExecutor(WORKERS) as pool:
        futures = {pool.submit(one, path, seed, *job): job for job in jobs}
        found = {}
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            print(f"\r{len(found)} of {len(jobs)} runs", end="", flush=True)
    print()
    return [found[job] for job in jobs]


def shown(rows: Sequence[dict[str, Any]]) -> None:
    cells = [
        COLUMNS,
        *([f"{r[c]:g}" if isinstance(r[c], float) else str(r[c]) for c in COLUMNS] for r in rows),
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    before = ""
    for line in cells:
        if line[0] != before:
            print()
        before = line[0]
        print("  ".join(f"{cell:<{width}}" if i in (0, 3) else f"{cell:>{width}}"
                        for i, (cell, width) in enumerate(zip(line, widths, strict=True))))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench-policy")
    parser.add_argument("--only", default="")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--seed", type=int, default=table.SEED)
    parser.add_argument("--million", action="store_true")
    given = parser.parse_args()
    if given.million:
        print(json.dumps(row(table.million(), "cost"), indent=1))
        return
    path = Path(os.environ.get("TRACE") or AZURE)
    if not path.is_file():
        raise SystemExit(f"TRACE={path}: there is no such file")
    began = time.perf_counter()
    rows = run(path, given.seed, given.only, given.policies.split(","))
    shown(rows)
    print(f"\n{len(rows)} runs in {time.perf_counter() - began:.0f} s\n")
    for line in verdicts(rows):
        print(line)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"written to {OUT}")


if __name__ == "__main__":
    main()
