"""What a second worker process brings, beside a second one of nginx, and how connections spread over processes.

    bench/workers.py [--rounds N] [--seconds S]

Nothing is pinned: two cores are shared by load, backend and subject, and where those two take a good part of the machine the
requests a second say what is left. So the CPU of each process is counted apart: `capacity_ratio` is what two cores of their own
would give, from what a request takes of workers and system together.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
from common import ROOT

sys.path.insert(0, str(ROOT))

from typing import TYPE_CHECKING

from data_path.cpu import pin
from data_path.subjects import Stand, Subject
from proxy import Load, calibrate, keep, progress, settle
from serving import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONNECTIONS = 64
WAIT_READY_S = 120
CORES = set(os.sched_getaffinity(0))
SPREADS = 40
OPENED = 32
Samples = dict[str, list[dict[str, float]]]


def vllama(stand: Stand, stack: ExitStack, workers: int) -> Subject:
    subject = stand.vllama(stack, 1, 1, "--workers", str(workers))
    if workers > 1:
        wait_ready(subject, workers)
    return subject


def wait_ready(subject: Subject, workers: int) -> None:
    """Every worker accepts."""

    def ready() -> bool:
        with httpx.Client(trust_env=False) as http:
            text = http.get(
                f"http://127.0.0.1:{subject.port}/debug/events",
                params={"since": 0, "follow": 0, "kind": "HostNoted"},
            ).text
        return text.count("worker_ready") >= workers

    if not wait_until(ready, WAIT_READY_S):
        raise SystemExit("the workers did not come up")


def play(load: Load, subject: Subject, seconds: float) -> dict[str, float]:
    for pid in (*subject.pids, *subject.parts.get("backend", ())):
        pin(pid, CORES)
    return load.play(
        subject, "requests", connections=CONNECTIONS, body_bytes=1024, seconds=seconds, parts=subject.parts
    )


def figures(samples: Samples) -> dict[str, float]:
    def middle(name: str, key: str) -> float:
        return statistics.median(one[key] for one in samples[name])

    found = {f"{name}.{key}": middle(name, key) for name, rounds in samples.items() for key in rounds[0]}
    one, two = found["vllama 1.cpu_us"], found["vllama 2.cpu_us"]
    found["requests_ratio"] = ratio(samples, "vllama 2", "vllama 1")
    found["requests_ratio_nginx"] = ratio(samples, "nginx 2", "nginx 1")
    found["capacity_ratio"] = 2 * one / two
    found["system_us_per_request"] = found["vllama 2.system_us"]
    found["workers_us_per_request"] = found["vllama 2.workers_us"]
    found["cpu_2_vs_nginx_2"] = two / found["nginx 2.cpu_us"]
    return {name: round(value, 4) for name, value in found.items()}


def ratio(samples: Samples, above: str, below: str) -> float:
    """Requests a second, within a round."""
    return statistics.median(
        a["per_s"] / b["per_s"] for a, b in zip(samples[above], samples[below], strict=True)
    )


def spread(how: str) -> float:
    """Of OPENED connections at once, how many the fuller of two processes gets; the median of many goes."""
    script = str(Path(__file__).parent / "data_path" / "accepting.py")
    with subprocess.Popen([sys.executable, script, how], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            time.sleep(1.0)  # both processes accept
            return statistics.median(max(shares(port)) for _ in range(SPREADS))
        finally:
            process.kill()


def shares(port: int) -> list[int]:
    socks = [socket.socket() for _ in range(OPENED)]
    for sock in socks:
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", port))
    got = [0, 0]
    for sock in socks:
        sock.setblocking(True)
        got[sock.recv(1)[0]] += 1
        sock.close()
    return got


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    samples: Samples = {}
    work: list[float] = []
    with ExitStack() as stack:
        stand, load = Stand(stack), Load(stack)
        pin(load.pid, CORES)
        makers: Mapping[str, Callable[[], Subject]] = {
            "nginx 1": lambda: stand.nginx(stack, 1),
            "nginx 2": lambda: stand.nginx(stack, 2),
            "vllama 1": lambda: vllama(stand, stack, 1),
            "vllama 2": lambda: vllama(stand, stack, 2),
        }
        subjects: dict[str, Subject] = {}
        for name, make in makers.items():
            with progress(f"starting {name}"):
                subjects[name] = make()
        for name in ("nginx 1", "nginx 2"):
            subjects[name].parts["backend"] = stand.backend.pids
        for turn in range(given.rounds):
            with progress(f"round {turn + 1} of {given.rounds}"):
                work += [calibrate() for _ in range(10)]
                for name, subject in subjects.items():
                    samples.setdefault(name, []).append(play(load, subject, given.seconds))
                    settle(subject)
    found = figures(samples)
    found |= {f"fuller_of_two_{how}": spread(how) for how in ("shared", "each")}
    found["noise"] = round(max(work) / statistics.median(work), 2)
    for name, value in found.items():
        print(f"{name:<32}  {value:g}")
    keep("workers", found, samples)


if __name__ == "__main__":
    main()
