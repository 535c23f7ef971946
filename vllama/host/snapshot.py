"""One snapshot folder as ModelFiles: is it whole, what kind of model is it, how heavy, how long a context.

Weights are judged by their presence, never loaded: only safetensors headers are read. A config.json that cannot be
read makes a model of kind `other` that is listed with its problem; starting it gives the engine's own error.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vllama.host.estimate import text_config
from vllama.host.host import ModelFiles

Kind = Literal["chat", "embedding", "rerank", "other"]

HEADER_BYTES_MAX = 100 * 2**20  # the safetensors library's own bound
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
GENERATORS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ChatModel", "ForImageTextToText")
NOT_CHAT = ("Whisper", "T5ForConditionalGeneration", "Bart", "Marian", "Pegasus")
GENERATOR_MODELS = ("ChatGLMModel", "InternVLChatModel")
CONTEXT_KEYS = (
    "max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx",
    "model_max_length",
)  # fmt: skip


def read_snapshot(model_id: str, snapshot: Path) -> ModelFiles | None:
    """The model in this folder, None when it is not whole. May raise OSError when files vanish meanwhile."""
    if not (snapshot / "config.json").is_file():
        return None
    weights = _weights_files(snapshot)
    if not weights:
        return None
    config = _read_json(snapshot / "config.json")
    sizes = [_weights_bytes(path) for path in weights]
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    sentence = (snapshot / "modules.json").is_file()
    return ModelFiles(
        id=model_id,
        path=str(snapshot),
        revision=snapshot.name,
        kind=kind_of(architecture, config, sentence_transformer=sentence),
        architecture=architecture,
        weights_bytes=sum(total for total, _ in sizes),
        context_length=_context_length(snapshot, config),
        config=config,
        modified_at=snapshot.stat().st_mtime,
        float32_bytes=sum(wide for _, wide in sizes),
        problem="" if config else "its config.json is not a JSON object: the engine will not start",
    )


def read_template(folder: str) -> str:
    """The chat template, from the file of its own or from the tokenizer's settings; "" where there is none."""
    snapshot = Path(folder)
    try:
        return (snapshot / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        template = _read_json(snapshot / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several by name
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        template = named.get("default") or next(iter(named.values()), "")
    return template if isinstance(template, str) else ""


def kind_of(architecture: str, config: Mapping[str, object], *, sentence_transformer: bool = False) -> Kind:
    """What the model does, by its architecture; the sentence-transformers layout turns a generator into an embedder."""
    if architecture.endswith("ForSequenceClassification"):
        return "rerank"
    if sentence_transformer and architecture:
        return "embedding"
    if architecture.startswith(NOT_CHAT):
        return "other"
    if architecture in GENERATOR_MODELS or architecture.endswith(GENERATORS):
        return "chat"
    if architecture.endswith("Model") and not config.get("is_encoder_decoder"):
        return "embedding"
    return "other"


def _weights_files(snapshot: Path) -> list[Path]:
    """The weights files, [] unless every one that belongs to the model is there and leads somewhere."""
    for name in INDEXES:
        if (snapshot / name).is_file():
            shards = _read_json(snapshot / name).get("weight_map")
            if isinstance(shards, dict) and shards:
                paths = [snapshot / str(shard) for shard in sorted(set(shards.values()), key=str)]
                return paths if all(path.is_file() for path in paths) else []
    for pattern in ("*.safetensors", "pytorch_model*.bin", "*.bin", "*.pt", "*.gguf"):
        paths = sorted(snapshot.glob(pattern))
        if paths:
            return paths if all(path.is_file() for path in paths) else []
    return []


def _weights_bytes(path: Path) -> tuple[int, int]:
    """Bytes of all tensors, and of those stored as float32. A file without a readable header counts by its size."""
    size = path.stat().st_size
    if path.suffix != ".safetensors":
        return size, 0
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(HEADER_BYTES_MAX, size):
                return size, 0
            header = json.loads(file.read(length))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        spans = [(entry["dtype"], entry["data_offsets"][1] - entry["data_offsets"][0]) for entry in tensors]
        return sum(span for _, span in spans), sum(span for dtype, span in spans if dtype == "F32")
    except (struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return size, 0


def _context_length(snapshot: Path, config: Mapping[str, object]) -> int:
    """Tokens of the longest input that the model was made for; 0 when its files do not say."""
    limit = _positive(_read_json(snapshot / "sentence_bert_config.json").get("max_seq_length"))
    shape = text_config(config)
    length = next((number for key in CONTEXT_KEYS if (number := _positive(shape.get(key)))), 0)
    if "roberta" in str(shape.get("model_type", "")):
        length = max(length - 2, 0)  # its positions begin after the padding index
    return min(limit, length) if limit and length else limit or length


def _positive(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40 else 0


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} when it is absent, not JSON or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
