"""A machine with GPUs, real or fake: servers on it, requests to them, and what its GPUs say is used."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from models import CHAT, EMBEDDING
from serving import Vllama, wait_until

from tests.acceptance.gpu_rig import models_of

EMBED = EMBEDDING
BOUND_S = 900.0  # of one request: a real engine's first start compiles
RETURN_S = 30.0
ASK = {
    CHAT: ("/v1/chat/completions", {"messages": [{"role": "user", "content": "What is the capital of France?"}],
                                    "max_tokens": 12, "temperature": 0}),
    EMBED: ("/v1/embeddings", {"input": ["a cat", "the stock market"]}),
}  # fmt: skip
LIST_GPUS = """
import json
from vllama.host.nvml import find_gpus
gpus, _ = find_gpus(None, None)
print(json.dumps([[g.info.name, g.info.id, g.info.total_bytes, g.sample({}, []).free_bytes] for g in gpus]))
"""


def gpus_of(env: Mapping[str, str]) -> list[tuple[str, str, int, int]]:
    """Name, UUID, bytes, and free bytes of each GPU, as another process sees them."""
    done = subprocess.run(
        [sys.executable, "-c", LIST_GPUS], env={**os.environ, **env},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return [tuple(gpu) for gpu in json.loads(done.stdout)]


def fake_models(hub: Path, sizes: Mapping[str, int]) -> Path:
    """Models of the real ones' names and sizes, for fake engines."""
    models_of(hub, {CHAT: sizes[CHAT]})
    return models_of(hub, {EMBED: sizes[EMBED]}, "BertModel")


class Machine:
    """One machine; `server` starts a vllama on it."""

    def __init__(
        self, make: Callable[..., Vllama], cache: Path, env: Mapping[str, str], folder: Path, *, fake: bool
    ) -> None:
        self.fake = fake
        self.names = [gpu[0] for gpu in gpus_of(env)]
        self._make, self._cache, self._env, self._folder = make, cache, dict(env), folder
        self._http: list[httpx.Client] = []
        self._count = 0

    def close(self) -> None:
        for http in self._http:
            http.close()

    def needs(self, gpus: int) -> None:
        if len(self.names) < gpus:
            pytest.skip(f"needs {gpus} GPUs, here are {len(self.names)}")

    def used_bytes(self, gpu: int = 0) -> int:
        """What the driver counts as used by anybody."""
        _, _, total, free = gpus_of(self._env)[gpu]
        return total - free

    def comes_down_to(self, most: int, gpu: int = 0) -> bool:
        return wait_until(lambda: self.used_bytes(gpu) <= most, RETURN_S)

    def server(self, *, yaml: str = "", **settings: str) -> "Served":
        config = self._folder / f"vllama-{self._count}" / "config"
        config.mkdir(parents=True)
        (config / "models.yaml").write_text(yaml)
        self._count += 1
        server = self._make(self._cache, fake=self.fake, env=self._env | settings)
        http = httpx.Client(base_url=server.url, trust_env=False, timeout=BOUND_S)
        self._http.append(http)
        return Served(server, http)


class Served:
    """A server and what can be asked of it."""

    def __init__(self, server: Vllama, http: httpx.Client) -> None:
        self.server, self.http = server, http

    def ask(self, model: str) -> tuple[Any, float]:
        """What of the answer must stay the same, and the seconds that it took."""
        path, body = ASK[model]
        begun = time.monotonic()
        answer = self.http.post(path, json={"model": model, **body})
        took_s = round(time.monotonic() - begun, 3)
        assert answer.status_code == 200, f"{answer.text}{self.server.log_tail()}"
        tree = answer.json()
        if "choices" in tree:
            return tree["choices"][0]["message"]["content"], took_s
        return [item["embedding"] for item in tree["data"]], took_s

    def command(self, verb: str, model: str, **more: Any) -> dict[str, Any]:
        answer = self.http.post(f"/control/{verb}", json={"model": model, **more})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def view(self, model: str) -> dict[str, Any]:
        views = self.http.get("/control/ps").json()["instances"]
        return next(view for view in views if view["model"] == model)

    def until(self, model: str, phase: str) -> None:
        assert wait_until(lambda: self.view(model)["phase"] == phase, 60), self.view(model)

    def count(self, kind: str, model: str) -> int:
        return sum(e["kind"] == kind and e["actor"] == model for e in self.server.events())


def same(one: Any, other: Any) -> bool:
    """Text is equal; vectors point the same way (kernels may differ in the last bits)."""
    if isinstance(one, str):
        return bool(one == other)
    return all(
        sum(a * b for a, b in zip(x, y, strict=True)) >= 0.999 * math.hypot(*x) * math.hypot(*y)
        for x, y in zip(one, other, strict=True)
    )
