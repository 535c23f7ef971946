"""What the actors cost a warm request: acquire + release through System, journal and read model included.

`median_us` with nothing else in flight, `median_us_2000` with 2,000 requests held. The engine is tests/fakes/fake_vllm.py, a real
process that is started once and then left alone: what is timed is the road from ask to ticket and back.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, publish

sys.path.insert(0, str(ROOT))

from tests.api.caches import CHAT, make_cache
from vllama.actors import System, Ticket
from vllama.config import load_config
from vllama.host.local import LocalHost

ROUNDS = 7
REQUESTS = 20_000


async def one_by_one(system: System, requests: int) -> tuple[float, float]:
    """Microseconds for each acquire + release: on the clock, and of the processor (what a neighbour takes is not ours)."""
    ensure = system.ensure_instance_running
    began, worked = time.perf_counter(), time.thread_time()
    for _ in range(requests):
        (await ensure(CHAT)).release()
    return (time.perf_counter() - began) / requests * 1e6, (time.thread_time() - worked) / requests * 1e6


async def main() -> None:
    quiet: list[tuple[float, float]] = []
    crowded: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        flags = {
            "config_dir": folder,
            "transformers_cache": make_cache(Path(folder) / "hub"),
            "engine_start": "exec",
            "engine_entry": str(ROOT / "tests" / "fakes" / "fake_vllm.py"),
        }
        config = load_config(flags, env={})
        system = System(config, LocalHost(config))
        await system.start()
        (await system.ensure_instance_running(CHAT)).release()  # the cold start is not what is timed
        for _ in range(ROUNDS):
            quiet.append(await one_by_one(system, REQUESTS))
            held: list[Ticket] = [await system.ensure_instance_running(CHAT) for _ in range(2000)]
            crowded.append(await one_by_one(system, REQUESTS))
            for ticket in held:
                ticket.release()
        await system.shutdown()
    wall, cpu = zip(*quiet, strict=True)
    wall_2000, cpu_2000 = zip(*crowded, strict=True)
    figures = {
        "median_us": round(statistics.median(wall), 2),
        "median_us_2000": round(statistics.median(wall_2000), 2),
        "cpu_us": round(statistics.median(cpu), 2),
        "cpu_us_2000": round(statistics.median(cpu_2000), 2),
    }
    columns = {"quiet_us": wall, "with_2000_us": wall_2000, "quiet_cpu_us": cpu, "with_2000_cpu_us": cpu_2000}
    publish("mailbox", columns, figures)


if __name__ == "__main__":
    asyncio.run(main())
