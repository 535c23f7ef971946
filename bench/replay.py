"""Three real engines on this machine's CPU, memory for two of them awake, and ten minutes of requests: policy by policy.

`make bench-replay [MINUTES=10]`. The same arrivals, seeded, for `cost` and `lru`; beside each the simulator's prediction from
what this machine was measured to take. The swaps are to be within SWAPS_APART of the prediction (exit 1 if not); waits are a
ratio without a bound: they have what two processors do besides in them. Requests have at most 64 tokens of context and 16
generated.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from common import OUT, ROOT, Vllama, server, wait_zygote

sys.path.insert(0, str(ROOT))

from replay_machine import Served, predicted

from bench.policy.traces import Arrival
from vllama.actors.core import messages as msg

MODELS = ("tiny/one", "tiny/two", "tiny/three")
POLICIES = ("cost", "lru")
KV_BYTES = 2**29  # so that an engine awake takes clearly more than one that sleeps
CONTEXT_MAX, GENERATED_MAX = 64, 16
LOAD_MAX = 0.5
BURST, GAP_S, EVERY_S = 3, 0.4, 4.0  # requests of a burst on average, between two of them, between bursts
QUIET_S = 30.0  # as the simulator has it, between the first starts and the trace
BOUND_S = 300.0
SWAPS_APART = 0.25
SEED = 7


def cache(folder: Path) -> Path:
    """Three tiny chat models of their own random weights."""
    from hf_layout import model_folder, publish, workshop

    hub = folder / "hub"
    missing = [model for model in MODELS if not model_folder(hub, model).is_dir()]
    if missing:
        import tiny
        import torch

        with workshop(hub) as work:
            for number, model in enumerate(MODELS):
                if model in missing:
                    torch.manual_seed(number)
                    files = Path(tempfile.mkdtemp(dir=work))
                    tiny.chat(files)
                    publish(hub, model, files, work)
    return hub


# --- the machine, measured --------------------------------------------------------------------------------------------


def prompt(rng: random.Random, context: int) -> list[int]:
    """So many tokens, as numbers; none of them ends anything."""
    return [rng.randrange(10, 200) for _ in range(context)]


def body(model: str, tokens: list[int], generated: int) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": tokens,
        "max_tokens": generated,
        "min_tokens": generated,
        "temperature": 0,
    }


def ask(client: httpx.Client, model: str, context: int, generated: int, rng: random.Random) -> float:
    """Seconds of one request to a model that is awake."""
    began = time.perf_counter()
    answer = client.post("/v1/completions", json=body(model, prompt(rng, context), generated))
    if answer.status_code != 200:
        raise SystemExit(f"{model}: {answer.status_code} {answer.text}")
    return time.perf_counter() - began


def calibrate(vllama: Vllama, models: Sequence[Served]) -> int:
    """Each model started, put to sleep at both levels, woken, timed and stopped. What the preloaded process takes."""
    rng = random.Random(0)
    with httpx.Client(base_url=vllama.url, timeout=BOUND_S, trust_env=False) as client:
        for model in models:
            ask(client, model.name, 8, 1, rng)
            for level in (2, 1, 2):
                answer = client.post("/control/sleep", json={"model": model.name, "level": level})
                if answer.status_code != 200 or answer.json()["phase"] != "asleep":
                    raise SystemExit(f"{model.name} did not go to sleep: {answer.text}")
                ask(client, model.name, 8, 1, rng)
            short, long, spoken = (
                statistics.median(ask(client, model.name, context, generated, rng) for _ in range(9))
                for context, generated in ((1, 1), (CONTEXT_MAX, 1), (1, GENERATED_MAX))
            )
            model.context_s = max(long - short, 0.0) / (CONTEXT_MAX - 1)
            model.generated_s = max(spoken - short, 0.0) / (GENERATED_MAX - 1)
            model.request_s = short
        records = vllama.events()
        shared = int(vllama.get("/control/ps")["devices"][0]["shared_bytes"])
        for model in models:
            client.post("/control/stop", json={"model": model.name}).raise_for_status()
        records = vllama.events()
    for model in models:
        model.learn(records)
        if not model.footprint:
            raise SystemExit(f"{model.name} was not weighed")
    return shared


# --- what is asked for ------------------------------------------------------------------------------------------------


def arrivals(models: Sequence[Served], duration_s: float, seed: int) -> list[Arrival]:
    """Bursts to one model each, half of them to the first; thinned out until the load is at most LOAD_MAX."""
    rng = random.Random(seed)
    every_s = EVERY_S
    while True:
        found: list[Arrival] = []
        at = 0.0
        while (at := at + rng.expovariate(1 / every_s)) < duration_s:
            model, when = rng.choices(range(len(models)), (3, 2, 2))[0], at
            while when < duration_s:
                found.append((when, model, rng.randint(1, CONTEXT_MAX), rng.randint(1, GENERATED_MAX)))
                if rng.random() < 1 / BURST:
                    break
                when += rng.expovariate(1 / GAP_S)
        found.sort()
        load = load_of(models, found, duration_s)
        if load <= LOAD_MAX:
            return found
        every_s *= 1.5


def load_of(models: Sequence[Served], found: Sequence[Arrival], duration_s: float) -> float:
    """As if one request were served at a time: engines on a CPU share its processors."""
    return sum(models[model].serve_s(context, out) for _, model, context, out in found) / duration_s


async def replayed(vllama: Vllama, models: Sequence[Served], trace: Sequence[Arrival]) -> list[float]:
    """Each request at its time; the seconds that each waited for its model, as vllama says."""
    rng = random.Random(1)
    bodies = [body(models[m].name, prompt(rng, context), out) for _, m, context, out in trace]
    waits = [-1.0] * len(trace)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=vllama.url, timeout=None, limits=limits, trust_env=False) as client:

        async def one(number: int) -> None:
            answer = await client.post("/v1/completions", json=bodies[number])
            if answer.status_code != 200:
                raise SystemExit(f"request {number}: {answer.status_code} {answer.text}")
            waits[number] = float(answer.headers["x-vllama-wait-ms"]) / 1000

        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with asyncio.TaskGroup() as group:
            for number, (at, *_) in enumerate(trace):
                await asyncio.sleep(max(begun + at - loop.time(), 0.0))
                group.create_task(one(number))
    return waits


def run(
    policy: str, hub: Path, limit: int, models: Sequence[Served], trace: Sequence[Arrival]
) -> dict[str, Any]:
    """One policy over the whole trace: what came of it."""
    with server("replay", hub, memory_limit=str(limit), env={"VLLAMA_POLICY": policy}) as vllama:
        wait_zygote(vllama)
        with httpx.Client(base_url=vllama.url, timeout=BOUND_S, trust_env=False) as client:
            for index in warm(models, trace):
                ask(client, models[index].name, 8, 1, random.Random(index))
        time.sleep(QUIET_S)
        seq = max((record["seq"] for record in vllama.events() if "seq" in record), default=0)
        waits = asyncio.run(replayed(vllama, models, trace))
        records = vllama.events(seq)
    kinds = [record["kind"] for record in records]
    return {
        "policy": policy,
        "swaps": kinds.count("EngineRose"),
        "evictions": kinds.count("EvictionOrdered"),
        "waits": waits,
    }


def warm(models: Sequence[Served], trace: Sequence[Arrival]) -> list[int]:
    """The order in which each is asked for once before: the least wanted first."""
    counts = [sum(1 for _, model, *_ in trace if model == index) for index in range(len(models))]
    return sorted(range(len(models)), key=lambda index: (counts[index], index))


# --- the report -------------------------------------------------------------------------------------------------------


def beside(real: dict[str, Any], swaps: int, waits: Sequence[float]) -> dict[str, Any]:
    """What was seen, and what was predicted."""

    def p99(values: Sequence[float]) -> float:
        return sorted(values)[min(int(len(values) * 0.99), len(values) - 1)]

    mean, foretold = statistics.fmean(real["waits"]), statistics.fmean(waits)
    return {
        "policy": real["policy"],
        "swaps": real["swaps"],
        "swaps_predicted": swaps,
        "swaps_apart": round(abs(real["swaps"] - swaps) / max(swaps, 1), 3),
        "wait_mean_s": round(mean, 3),
        "wait_mean_predicted_s": round(foretold, 3),
        "wait_ratio": round(mean / foretold, 2) if foretold else None,
        "wait_p99_s": round(p99(real["waits"]), 2),
        "wait_p99_predicted_s": round(p99(waits), 2),
        "evictions": real["evictions"],
    }


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("MINUTES", "10")))
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    duration_s = options.minutes * 60
    folder = ROOT / ".demo" / "replay"
    hub = cache(folder)
    models = [Served(name, weights_of(hub, name)) for name in MODELS]
    config = ROOT / ".demo" / "bench-replay" / "config"
    config.mkdir(parents=True, exist_ok=True)
    entries = {name: {"kv_cache_memory": KV_BYTES} for name in MODELS}
    (config / "models.yaml").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    with server("replay", hub) as vllama:
        wait_zygote(vllama)
        shared = calibrate(vllama, models)
    most, least = max(m.footprint for m in models), max(m.residue for m in models)
    room = (
        2 * most + least + (most - least) // 2
    )  # two awake and one asleep, and half of what a third would take
    trace = arrivals(models, duration_s, options.seed)
    told(models, room, trace, duration_s)
    rows = []
    for policy in POLICIES:
        real = run(policy, hub, room + shared, models, trace)
        settings = msg.BrokerPolicy(policy=policy)
        foretold = predicted(models, trace, duration_s, settings, room, warm(models, trace))
        rows.append(beside(real, *foretold))
        print(json.dumps(rows[-1]), flush=True)
    report = {
        "commit": commit(),
        "minutes": options.minutes,
        "seed": options.seed,
        "requests": len(trace),
        "load": round(load_of(models, trace, duration_s), 3),
    }
    for row in rows:
        report |= {f"{row['policy']}_{name}": value for name, value in row.items() if name != "policy"}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "replay.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written to {OUT / 'replay.json'}")
    far = [row["policy"] for row in rows if row["swaps_apart"] > SWAPS_APART]
    if far:
        print(
            f"the swaps are more than {SWAPS_APART:.0%} from the prediction: {', '.join(far)}",
            file=sys.stderr,
        )
    return 1 if far else 0


def weights_of(hub: Path, model: str) -> int:
    folder = hub / ("models--" + model.replace("/", "--"))
    return max(path.stat().st_size for path in folder.rglob("*.safetensors"))


def told(models: Sequence[Served], room: int, trace: Sequence[Arrival], duration_s: float) -> None:
    """The machine as it was measured, and what will be asked of it."""
    for m in models:
        ups = ", ".join(
            f"from {level} {statistics.median(took):.2f} s" for level, took in sorted(m.ups.items())
        )
        downs = ", ".join(
            f"to {level} {statistics.median(took):.2f} s" for level, took in sorted(m.downs.items())
        )
        serve = f"a request of 64 and 16 tokens {m.serve_s(64, 16):.3f} s"
        print(
            f"{m.name}: {m.footprint >> 20} MiB awake, {m.residue >> 20} asleep; up {ups}; down {downs}; {serve}"
        )
    load = load_of(models, trace, duration_s)
    print(
        f"room for engines {room >> 20} MiB; {len(trace)} requests in {duration_s:.0f} s, load {load:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
