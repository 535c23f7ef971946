"""What a request and a streamed event cost through vllama, beside nginx, the usual recipe and LiteLLM, on one backend.

    bench/proxy.py [--only direct,nginx,vllama,recipe,litellm,flat] [--rounds N] [--quick]

In each round every subject has its turn. The subject is pinned to one core, load and backend to another; CPU is what the kernel
booked on the subject's processes between two moments, divided by what was answered between them.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common import OUT, ROOT

sys.path.insert(0, str(ROOT))

from data_path import report
from data_path.cpu import cpu_ns
from data_path.subjects import LOAD_CORES, PROXY_CORES, Stand, Subject, on
from serving import pss_bytes, wait_until

SUBJECTS = ("direct", "nginx", "vllama", "recipe", "litellm")
ROUNDS = 5
STREAMS = 100
RATE = 50
STREAMS_OF_LITELLM = 15  # it passes about a thousand events a second; more only piles up
KNOWN, AWAKE = 1000, 100
FLAT_S, FLAT_TURNS = 0.4, 8  # of a turn; as many turns for each round
IDLE = 2000
IDLE_OF_SLOW = 200  # opening a stream costs these tens of milliseconds
SLOW = ("recipe", "litellm")
WARM_REQUESTS_S = 1.0
CALIBRATION_LOOPS = 200_000
QUIET_LOOK_S = 0.25
QUIET_SHARE = 0.05
QUIET_TIMEOUT_S = 30

Jobs = dict[str, dict[str, Any]]
Samples = dict[str, list[dict[str, float]]]  # by "subject phase"


class Load:
    """The process that asks."""

    def __init__(self, stack: ExitStack) -> None:
        command = [sys.executable, str(Path(__file__).parent / "data_path" / "client.py")]
        with on(LOAD_CORES):
            self._process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
        self.pid = self._process.pid
        stack.callback(self._process.terminate)

    def play(self, subject: Subject, do: str, **job: Any) -> dict[str, float]:
        """The result of one job against this subject."""
        job |= {"do": do, "port": subject.port, "models": subject.models, "pids": subject.pids}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        result = json.loads(self._process.stdout.readline() or '{"error": "the load ended"}')
        if "error" in result:
            raise SystemExit(f"{subject.name}, {do}: {result['error']}")
        return result


def phases(seconds: float) -> Jobs:
    """The jobs of a turn, by name."""
    loop = {"do": "requests", "body_bytes": 1024}
    return {
        "c1": loop | {"connections": 1, "seconds": seconds * 0.6},
        "c32": loop | {"connections": 32, "seconds": seconds},
        "c32_100k": loop | {"connections": 32, "body_bytes": 100 * 1024, "seconds": seconds},
        "streams": {"do": "streams", "connections": STREAMS, "rate": RATE, "seconds": seconds * 1.4},
    }


def idle_kb(stand: Stand, load: Load, name: str, streams: int) -> float:
    """KB of memory that one open, silent stream takes, in a process that has served requests before."""
    with stand.fresh(name) as subject:
        load.play(subject, "requests", connections=32, body_bytes=1024, seconds=WARM_REQUESTS_S)
        before = sum(map(pss_bytes, subject.pids))
        load.play(subject, "open", connections=streams)
        after = sum(map(pss_bytes, subject.pids))
        load.play(subject, "close")
    return (after - before) / streams / 1024


@contextmanager
def progress(text: str) -> Iterator[None]:
    began = time.monotonic()
    print(f"{text} ...", end=" ", flush=True)
    yield
    print(f"{time.monotonic() - began:.1f} s", flush=True)


def calibrate() -> float:
    """Milliseconds that a fixed amount of work takes on the subject's core: what moves here is the machine."""
    with on(PROXY_CORES):
        began = time.perf_counter_ns()
        sum(range(CALIBRATION_LOOPS))
        return (time.perf_counter_ns() - began) / 1e6


def settle(subject: Subject) -> None:
    """Returns when the subject has worked off what its clients left behind; nothing of it falls into another's turn."""

    def quiet() -> bool:
        before = cpu_ns(subject.pids)
        time.sleep(QUIET_LOOK_S)
        return cpu_ns(subject.pids) - before < QUIET_SHARE * QUIET_LOOK_S * 1e9

    if not wait_until(quiet, QUIET_TIMEOUT_S):
        print(f"({subject.name} does not come to rest)", end=" ", flush=True)


def turns(
    load: Load, subjects: Mapping[str, Subject], jobs: Jobs, rounds: int, samples: Samples
) -> list[float]:
    """Every round each subject once; the milliseconds that a fixed piece of work took between them."""
    work = []
    for turn in range(rounds):
        with progress(f"round {turn + 1} of {rounds}"):
            work += [calibrate() for _ in range(10)]
            for name, subject in subjects.items():
                for phase, job in jobs.items():
                    if phase == "streams" and name == "litellm":
                        job = job | {"connections": STREAMS_OF_LITELLM}
                    samples.setdefault(f"{name} {phase}", []).append(load.play(subject, **job))
                settle(subject)
    return work


def measure(only: list[str], rounds: int, *, quick: bool) -> tuple[Samples, list[float]]:
    samples: Samples = {}
    work: list[float] = []
    jobs = phases(0.7 if quick else 1.5)
    subjects: dict[str, Subject] = {}
    names = [name for name in SUBJECTS if name in only]
    if names:
        with ExitStack() as stack:
            stand, load = Stand(stack), Load(stack)
            for name in names:
                with progress(f"starting {name}"):
                    subjects[name] = stand.start(name)
            work += turns(load, subjects, jobs, rounds, samples)
    if "flat" in only:  # alone: a server that watches a hundred engines is not idle
        with ExitStack() as stack:
            stand, load = Stand(stack), Load(stack)
            one = stand.vllama(stack, 1, 1)
            with progress(f"starting vllama with {KNOWN} models, {AWAKE} of them awake"):
                many = stand.vllama(stack, KNOWN, AWAKE)
            first = dataclasses.replace(many, models=many.models[:1])
            pair = {"flat alone": one, "flat one": first, "flat spread": many}
            # What is compared differs by less than the machine does within a minute.
            short = jobs["c32"] | {"seconds": FLAT_S}
            work += turns(load, pair, {"c32": short}, rounds * FLAT_TURNS, samples)
    with ExitStack() as stack:  # each subject is fresh
        stand, load = Stand(stack), Load(stack)
        for name in names[1:] if "direct" in names else names:
            streams = (IDLE_OF_SLOW if name in SLOW else IDLE) // (4 if quick else 1)
            with progress(f"{streams} idle streams through {name}"):
                kept = [
                    idle_kb(stand, load, name, streams) for _ in range(1 if name in SLOW else min(rounds, 3))
                ]
                samples[f"{name} idle"] = [{"kb": kb} for kb in kept]
    return samples, work


def keep(name: str, figures: Mapping[str, float], samples: Samples) -> None:
    """The figures as one flat object, what they were made of beside it."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.json"
    path.write_text(json.dumps(dict(figures), indent=1) + "\n", encoding="utf-8")
    path.with_name(f"{name}-rounds.json").write_text(json.dumps(samples, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join([*SUBJECTS, "flat"]), help="names with commas between")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="short windows, few idle streams")
    given = parser.parse_args()
    only = given.only.split(",")
    if unknown := set(only) - {*SUBJECTS, "flat"}:
        parser.error(f"unknown: {', '.join(unknown)}")
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    if PROXY_CORES == LOAD_CORES:
        print("only one core: subject, load and backend share it; latencies and rates say little")
    samples, work = measure(only, given.rounds, quick=given.quick)
    figures = report.figures(samples)
    figures["noise"] = round(max(work) / statistics.median(work), 2)
    print(report.table(samples))
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:g}")
    keep("proxy", figures, samples)


if __name__ == "__main__":
    main()
