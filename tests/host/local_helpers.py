"""What the tests of LocalHost share: a host over fake engines, and one launch on it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.api.caches import CHAT, make_cache
from vllama.config import ModelConfig, VllamaConfig
from vllama.host.command import launch_spec
from vllama.host.engine import Engine
from vllama.host.host import HostEvent, ModelFiles, ProcInfo
from vllama.host.local import LocalHost

FAKE = Path(__file__).resolve().parent.parent / "fakes" / "fake_vllm.py"
BOUND_S = 30.0
LEASE_BYTES = 2**31


class Bench:
    """An open LocalHost over a cache of models without content, its engines fake."""

    def __init__(self, host: LocalHost, config: VllamaConfig, faults: Path) -> None:
        self.host = host
        self.config = config
        self.faults = faults
        self._count = 0

    async def files(self, model: str = CHAT) -> ModelFiles:
        return next(files for files in await self.host.models({}) if files.id == model)

    async def spec(self, model: str = CHAT, launch_id: str = "", port: int = 0, **env: str) -> Any:
        self._count += 1
        info = await self.host.describe()
        settings = ModelConfig(env={"FAKE_VLLM_FAULTS_FILE": str(self.faults), **env}, kv_cache_memory=2**20)
        files = await self.files(model)
        name = launch_id or f"{model}#{self._count}"
        return launch_spec(self.config, settings, files, info.devices, LEASE_BYTES, name, port)

    async def launch(self, model: str = CHAT, **options: Any) -> tuple[ProcInfo, Engine]:
        proc = await self.host.launch(await self.spec(model, **options))
        return proc, Engine(self.host, proc.launch_id, await self.files(model))

    async def awake(self, model: str = CHAT, **options: Any) -> tuple[ProcInfo, Engine]:
        proc, engine = await self.launch(model, **options)
        await engine.ready(BOUND_S, BOUND_S)
        await engine.warm_up(BOUND_S)
        return proc, engine

    async def exited(self, launch_id: str) -> HostEvent:
        """The end of this launch, as soon as it is told."""
        after = 0
        async with asyncio.timeout(BOUND_S):
            while True:
                for event in await self.host.events(after, BOUND_S):
                    after = event.seq
                    if event.kind == "exited" and event.launch_id == launch_id:
                        return event

    async def stats(self, proc: ProcInfo) -> dict[str, Any]:
        return (await self.fetch(proc, "GET", "/fake/stats")).json()

    async def fetch(self, proc: ProcInfo, method: str, path: str, **options: Any) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=BOUND_S) as client:
            return await client.request(method, f"http://127.0.0.1:{proc.port}{path}", **options)

    async def used(self, launch_id: str) -> int:
        return (await self.host.sample()).devices[0].used_by[launch_id]


@asynccontextmanager
async def open_bench(folder: Path, **settings: Any) -> AsyncIterator[Bench]:
    cache = folder / "hub"
    if not cache.exists():
        make_cache(cache)
    base = {"transformers_cache": cache, "config_dir": folder / "config", "engine_entry": str(FAKE)}
    config = VllamaConfig.model_validate(base | settings)
    host = LocalHost(config)
    await host.open()
    try:
        yield Bench(host, config, folder / "faults")
    finally:
        await host.close()


def with_bench(folder: Path, story: Callable[[Bench], Awaitable[None]], **settings: Any) -> None:
    """Runs one story on a bench of its own."""

    async def run() -> None:
        async with open_bench(folder, **settings) as bench:
            await story(bench)

    asyncio.run(run())
