"""How much memory an engine will want, computed from its files before its first start. Pure.

Weights are exact. The KV cache follows from the model's shape and the context length. The rest is a measured constant.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vllama.config import ModelConfig, VllamaConfig
from vllama.host.host import DeviceInfo, ModelFiles

# Private bytes of a forked CPU engine's whole tree (keeper, API server, EngineCore, worker) beyond weights and KV cache,
# after its warm-up. Measured with vLLM 0.32 on 2 cores: SmolLM2-135M 426 MiB, all-MiniLM-L6-v2 309 MiB. A plainly started
# one takes more; the measurement after its start replaces this.
CPU_OVERHEAD_BYTES = 448 * 2**20
# CUDA context, activations of a profiling run and graphs of a small model; replaced by a measurement after the start.
CUDA_OVERHEAD_BYTES = 1536 * 2**20
# What a CUDA context takes before vLLM first looks at free memory: its demand must leave room for it.
CUDA_CONTEXT_BYTES = 512 * 2**20
# Level 1 copies weights into pinned host memory, which torch rounds up block by block: at most so much for each byte.
PINNED_PART_MAX = 1.8
CUDA_KV_SHARE = (
    8  # an eighth of a GPU for a context whose length nobody chose, where that is above `kv_default_max`
)

# Laid over what was measured on a GPU: activations of larger batches than the warm-up's.
CUDA_MARGIN_BYTES = 256 * 2**20

KV_BLOCK_TOKENS = 128  # vLLM's block on CPU, the largest of its usual ones
KV_BLOCKS_MIN = 2  # one block stays empty for ever ("null block"), one serves
ENCODERS = ("bert", "mpnet", "electra", "gte", "new")  # model types (or parts of them) that keep no KV cache


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one engine takes on each of its devices; `context_length` is what its KV cache can hold of one request."""

    weights_bytes: int
    kv_bytes: int
    overhead_bytes: int
    context_length: int

    @property
    def need_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.overhead_bytes

    @property
    def copy_bytes(self) -> int:
        """What a GPU's sleep at level 1 takes of the host's RAM, and keeps until the engine ends."""
        return math.ceil(self.weights_bytes * PINNED_PART_MAX)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What an engine was measured to take of a device: awake, with a KV cache of `kv_bytes`, and asleep (0: not measured)."""

    awake_bytes: int = 0
    kv_bytes: int = 0
    level_1_bytes: int = 0
    level_2_bytes: int = 0


def calibrated(
    size: Estimate, footprint: Footprint | None, model: ModelConfig, device: DeviceInfo
) -> Estimate:
    """The estimate with what was measured in place of the guessed constant; a share that the user gave stays as it is."""
    if footprint is None or model.gpu_memory_utilization != "auto":
        return size
    overhead = footprint.awake_bytes - size.weights_bytes - footprint.kv_bytes
    if overhead <= 0:  # less than its weights: something else was measured
        return size
    margin = CUDA_MARGIN_BYTES if device.kind == "cuda" else 0
    return replace(size, overhead_bytes=overhead + margin)


def estimate(files: ModelFiles, model: ModelConfig, config: VllamaConfig, device: DeviceInfo) -> Estimate:
    """The need per device. A number for `gpu_memory_utilization` fixes the sum: the KV cache gets what is left of it."""
    on_gpu = device.kind == "cuda"
    weights = math.ceil(loaded_weights_bytes(files, model) / world_size(model))
    overhead = CUDA_OVERHEAD_BYTES if on_gpu else CPU_OVERHEAD_BYTES
    full_length = files.context_length
    length = min(model.max_model_len or full_length, full_length) if full_length else model.max_model_len or 0
    share = model.gpu_memory_utilization
    fixed = 0 if share == "auto" else int(share * device.whole_bytes) + (CUDA_CONTEXT_BYTES if on_gpu else 0)
    if is_encoder(files):
        rest = max(fixed - weights, overhead) if on_gpu else overhead
        return Estimate(weights, 0, rest, length)
    per_token = kv_bytes_per_token_and_device(files.config, model)
    least = KV_BLOCKS_MIN * KV_BLOCK_TOKENS * per_token
    kv_max = max(config.kv_default_max, device.total_bytes // CUDA_KV_SHARE if on_gpu else 0)
    if model.kv_cache_memory is not None:
        kv = model.kv_cache_memory  # of each device, as vLLM means it
    elif fixed:
        kv = max(min(fixed, device.total_bytes) - weights - overhead, least)
    elif not per_token or not length:
        kv = config.kv_default_max
    else:
        whole = (math.ceil(length / KV_BLOCK_TOKENS) + 1) * KV_BLOCK_TOKENS * per_token
        kv = whole if model.max_model_len else max(min(whole, kv_max), least)
    return Estimate(weights, kv, overhead, _length_held(kv, per_token, length))


def world_size(model: ModelConfig) -> int:
    """Over how many devices one engine spreads its weights."""
    return tensor_ranks(model) * _extra_number(model, "pipeline_parallel_size", 1)


def tensor_ranks(model: ModelConfig) -> int:
    """Over how many devices each layer is spread; `extra_args` win, as they do on the command line."""
    return _extra_number(model, "tensor_parallel_size", model.tensor_parallel_size)


def kv_bytes_for_lease(size: Estimate, lease_bytes: int) -> int:
    """The KV cache under a lease: as estimated, or what a lease cut below the need leaves of it (never negative)."""
    return max(size.kv_bytes - max(size.need_bytes - lease_bytes, 0), 0)


def loaded_weights_bytes(files: ModelFiles, model: ModelConfig) -> int:
    """The weights as the engine holds them: with dtype auto vLLM halves those stored as float32; with dtype float32 it
    doubles the others, unless they are quantized (then the headers say what they take)."""
    if model.dtype not in ("float32", "float"):
        return files.weights_bytes - files.float32_bytes // 2
    quantized = bool(files.config.get("quantization_config"))
    return files.weights_bytes if quantized else 2 * files.weights_bytes - files.float32_bytes


def is_encoder(files: ModelFiles) -> bool:
    """Whether the model reads its whole input at once and so keeps no KV cache (BERT and its kin)."""
    if files.kind not in ("embedding", "rerank") or files.config.get("is_decoder"):
        return False
    model_type = str(files.config.get("model_type", "")).lower()
    return any(part == model_type or (part == "bert" and part in model_type) for part in ENCODERS) or (
        "roberta" in model_type
    )


def kv_bytes_per_token(config: Mapping[str, object], model: ModelConfig) -> int:
    """What one token takes in the KV cache over all layers; 0 when the config does not say its shape."""
    shape = text_config(config)
    layers = _attention_layers(shape)
    size = _kv_dtype_bytes(shape, model)
    if (rank := _number(shape, "kv_lora_rank")) > 0:  # multi-head latent attention keeps one latent vector
        return layers * (rank + _number(shape, "qk_rope_head_dim")) * size
    heads = _number(shape, "num_attention_heads", "n_head")
    kv_heads = _number(shape, "num_key_value_heads", "num_kv_heads") or heads
    width = _number(shape, "hidden_size", "n_embd", "d_model")
    head_size = _number(shape, "head_dim") or (width // heads if heads else 0)
    return 2 * layers * kv_heads * head_size * size


def kv_bytes_per_token_and_device(config: Mapping[str, object], model: ModelConfig) -> int:
    """Tensor parallelism shares out the heads, at least one to each; a latent vector is kept by every rank whole."""
    whole, shape = kv_bytes_per_token(config, model), text_config(config)
    heads = _number(shape, "num_key_value_heads", "num_kv_heads") or _number(
        shape, "num_attention_heads", "n_head"
    )
    ranks = tensor_ranks(model)
    part = 1.0 if _number(shape, "kv_lora_rank") else max(1 / ranks, 1 / max(heads, 1))
    return math.ceil(whole * part / _extra_number(model, "pipeline_parallel_size", 1))


def text_config(config: Mapping[str, object]) -> Mapping[str, Any]:
    """The part of a config.json that describes the language model (multimodal ones nest it)."""
    for name in ("text_config", "llm_config", "language_config"):
        if isinstance(inner := config.get(name), dict) and inner:
            return {**config, **inner}
    return config


def _attention_layers(shape: Mapping[str, Any]) -> int:
    """Layers that keep a KV cache: in hybrid models the linear ones keep a small state instead."""
    kinds = shape.get("layer_types")
    if isinstance(kinds, list) and kinds:
        return sum("attention" in str(kind) and "linear" not in str(kind) for kind in kinds)
    return _number(shape, "num_hidden_layers", "n_layer", "num_layers", "n_layers")


def _kv_dtype_bytes(shape: Mapping[str, Any], model: ModelConfig) -> int:
    wanted = str(model.extra_args.get("kv_cache_dtype") or model.extra_args.get("kv-cache-dtype") or "auto")
    if wanted.startswith(("fp8", "int8")):
        return 1
    return 4 if model.dtype in ("float32", "float") else 2


def _length_held(kv: int, per_token: int, length: int) -> int:
    if not per_token:
        return length
    blocks = kv // (per_token * KV_BLOCK_TOKENS) - 1
    held = max(blocks, 0) * KV_BLOCK_TOKENS
    return min(held, length) if length else held


def _extra_number(model: ModelConfig, name: str, default: int) -> int:
    """A whole number of `extra_args`, however its name is spelled there."""
    for key, value in model.extra_args.items():
        if key.strip().lstrip("-").replace("-", "_") == name and isinstance(value, int) and value > 0:
            return value
    return default


def _number(shape: Mapping[str, Any], *names: str) -> int:
    """The first of these keys that is a positive number."""
    for name in names:
        value = shape.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return int(value)
    return 0
