"""An adapter named in models.yaml, on the real engine: served under its own name beside its base model, also after sleep."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Vllama

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

TINY = "tiny/qwen3"
RANK, HIDDEN, KV = 8, 64, 32  # of the tiny model (tools/tiny.py)


def make_adapter(folder: Path) -> Path:
    """A LoRA adapter for the tiny model with random numbers, so large that the answers change."""
    folder.mkdir()
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 64, "bias": "none",
        "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": TINY,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    rng = random.Random(1)
    header: dict[str, Any] = {}
    data = b""
    for layer in range(2):
        for module, out in (("q_proj", HIDDEN), ("v_proj", KV)):
            for name, shape in (("lora_A", (RANK, HIDDEN)), ("lora_B", (out, RANK))):
                numbers = [rng.uniform(-1, 1) for _ in range(shape[0] * shape[1])]
                begin, data = len(data), data + struct.pack(f"<{len(numbers)}f", *numbers)
                key = f"base_model.model.model.layers.{layer}.self_attn.{module}.{name}.weight"
                header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def test_an_adapter_answers_beside_its_base_model_also_after_level_2(
    vllama_server: Callable[..., Vllama], tiny_cache: Path, tmp_path: Path
) -> None:
    adapter = make_adapter(tmp_path / "sql")
    config = tmp_path / "vllama-0" / "config"
    config.mkdir(parents=True)
    (config / "models.yaml").write_text(f"{TINY}:\n  lora: {{sql: {adapter}}}\n", encoding="utf-8")
    server = vllama_server(tiny_cache)

    def answer(http: httpx.Client, model: str) -> str:
        body = {"model": model, "prompt": "the cat sat on the", "max_tokens": 12, "temperature": 0}
        found = http.post("/v1/completions", json=body)
        assert found.status_code == 200, found.text
        assert found.json()["model"] == model
        return str(found.json()["choices"][0]["text"])

    with httpx.Client(base_url=server.url, trust_env=False, timeout=240) as http:
        cards = {card["id"]: card for card in http.get("/v1/models").json()["data"]}
        assert cards["sql"]["parent"] == TINY
        adapted, base = answer(http, "sql"), answer(http, TINY)
        assert adapted != base
        slept = http.post("/control/sleep", json={"model": "sql", "level": 2}).json()
        assert (slept["model"], slept["phase"], slept["level"]) == (TINY, "asleep", 2)
        assert answer(http, "sql") == adapted
        assert answer(http, TINY) == base
        (view,) = http.get("/control/ps").json()["instances"]
        assert view["error"] == ""
        starts = [event for event in server.events() if event["kind"] == "EngineSpawned"]
        assert len(starts) == 1  # it woke; it was not started anew
