"""Real sleep on CPU: the memory comes back, and the answers after it are the very same."""

import asyncio
import json
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from tests.engine.engine_helpers import KV_BYTES, Engine, snapshot, start
from tests.host.proc_helpers import server

MB = 10**6


async def chat(engine: Engine) -> Any:
    return await engine.chat("What is the capital of France?")


async def embed(engine: Engine) -> Any:
    body = {"model": "m", "input": ["the cat sat", "on the mat"]}
    return (await engine.call("POST", "/v1/embeddings", body))["data"]


async def rerank(engine: Engine) -> Any:
    body = {"model": "m", "query": "cat", "documents": ["the cat sat", "of a dog"]}
    return (await engine.call("POST", "/v1/rerank", body))["results"]


def test_level_2_gives_back_weights_and_kv_cache_at_the_third_cycle_as_at_the_first(demo_cache, tmp_path):
    path = snapshot(demo_cache, "HuggingFaceTB/SmolLM2-135M-Instruct")
    weights = sum(file.stat().st_size for file in Path(path).glob("*.safetensors"))

    async def story():
        async with server(tmp_path, preload=True) as host:
            engine = await start(host.processes, tmp_path, path)
            assert (engine.started.mode, engine.started.reason) == ("fork", "")
            before = await chat(engine)
            assert "Paris" in before[0]["message"]["content"]
            for _ in range(3):
                awake = await engine.private_bytes()
                await engine.call("POST", "/sleep?level=2")
                asleep = await engine.private_bytes()
                assert awake - asleep >= 0.8 * (weights + KV_BYTES), f"{awake / MB} MB -> {asleep / MB} MB"
                await engine.wake_from_2()
                assert await chat(engine) == before
            awake = await engine.private_bytes()
            await engine.call("POST", "/sleep?level=1")
            asleep = await engine.private_bytes()
            assert 0.8 * KV_BYTES <= awake - asleep <= 1.5 * KV_BYTES, f"{awake / MB} MB -> {asleep / MB} MB"
            await engine.call("POST", "/wake_up")
            assert await chat(engine) == before

    asyncio.run(story())


KINDS = (
    ("tiny/qwen3", chat, ()),
    ("tiny/bge-m3", embed, ("--runner", "pooling")),
    ("tiny/qwen3-reranker", rerank, ("--runner", "pooling")),
)


async def sleep_every_way(engine: Engine, ask: Any) -> None:
    before = await ask(engine)
    for level in (1, 2, 2):
        await engine.call("POST", f"/sleep?level={level}")
        assert (await engine.call("GET", "/is_sleeping"))["is_sleeping"] is True
        if level == 2:
            await engine.wake_from_2()
        else:
            await engine.call("POST", "/wake_up")
        assert await ask(engine) == before
    # A level that there is not is refused, and the engine serves on.
    with pytest.raises(urllib.error.HTTPError, match=r"[45]\d\d"):
        await engine.call("POST", "/collective_rpc", {"method": "sleep", "kwargs": {"level": 7}})
    assert await ask(engine) == before


def test_answers_are_the_same_after_every_way_of_sleeping(tiny_cache, tmp_path):
    async def story():
        async with server(tmp_path, preload=True) as host:
            for model, ask, more in KINDS:
                path, name = snapshot(tiny_cache, model), model.rpartition("/")[2]
                engine = await start(host.processes, tmp_path, path, *more, launch_id=name)
                assert engine.started.mode == "fork"
                await sleep_every_way(engine, ask)
                host.processes.kill(name, 10)

    asyncio.run(story())


WOKEN = """
import json, types, torch
from vllama.host.cpu_worker import SleepingCPUWorker

worker = SleepingCPUWorker.__new__(SleepingCPUWorker)
worker._freed, worker._unloaded = {"weights": [], "kv_cache": []}, []
caches = [torch.full((size,), 7.0) for size in (10, 1000, 100_000)]
worker.model_runner = types.SimpleNamespace(kv_caches=caches)
worker.compilation_config = types.SimpleNamespace(static_forward_context={})
said = []
for _ in range(2):
    worker.sleep(1)
    said.append([cache.untyped_storage().nbytes() for cache in caches])
    worker.wake_up()
    said.append([cache.untyped_storage().nbytes() for cache in caches])
    said.append([float(cache.abs().max()) for cache in caches])
    for cache in caches:
        cache.fill_(7.0)
print("\\n" + json.dumps(said))
"""


def test_a_kv_cache_has_its_memory_again_after_a_wake_and_it_is_zero() -> None:
    """What stood there before would be taken for what was just computed."""
    done = subprocess.run(
        [sys.executable, "-c", WOKEN], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == 2 * [
        [0, 0, 0], [40, 4000, 400_000], [0.0, 0.0, 0.0],
    ]  # fmt: skip
