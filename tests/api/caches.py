"""A Hugging Face cache whose models have files of the right shape and nothing in them: enough for a fake engine."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

CHAT = "tiny/chat"
EMBED = "tiny/embed"
RERANK = "tiny/rerank"
ARCHITECTURES = {
    CHAT: "Qwen3ForCausalLM",
    EMBED: "BertModel",
    RERANK: "Qwen3ForSequenceClassification",
}


def make_cache(hub: Path, models: Mapping[str, str] = ARCHITECTURES) -> Path:
    """One complete model per entry (name -> architecture), with weights of 4 KiB."""
    for name, architecture in models.items():
        folder = hub / ("models--" + name.replace("/", "--"))
        snapshot = folder / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(snapshot.name)
        config = {
            "architectures": [architecture],
            "model_type": "bert" if "Bert" in architecture else "qwen3",
            "max_position_embeddings": 512,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 32,
        }
        (snapshot / "config.json").write_text(json.dumps(config))
        header = json.dumps({"w": {"dtype": "BF16", "shape": [2048], "data_offsets": [0, 4096]}}).encode()
        (snapshot / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4096))
    return hub
