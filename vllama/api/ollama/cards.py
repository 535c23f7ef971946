"""What Ollama shows of a model: digest, size, family, parameters, quantization; read from what the catalog knows of its files."""

import hashlib
from typing import Any

from vllama.actors import System
from vllama.api.ollama.clock import stamp
from vllama.api.ollama.names import tagged

_WIDTHS = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "float8_e4m3fn": 1.0, "int8": 1.0}
_LEVELS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8", "int8": "I8"}


def card(system: System, name: str, model: str, served: str) -> dict[str, Any]:
    """What /api/tags and /api/ps have in common for one name of a model."""
    files = system.catalog.files[model]
    return {
        "name": tagged(name),
        "model": tagged(name),
        "size": files.weights_bytes,
        "digest": digest(system, model),
        "details": details(system, model, parent=model if served != model else ""),
    }


def digest(system: System, model: str) -> str:
    """The same for the same files, whatever the name: 64 hexadecimal digits."""
    files = system.catalog.files[model]
    return hashlib.sha256(f"{files.id}@{files.revision}".encode()).hexdigest()


def modified(system: System, model: str) -> str:
    return stamp(system.catalog.files[model].modified_at)


def details(system: System, model: str, parent: str = "") -> dict[str, Any]:
    config = system.catalog.files[model].config
    family = str(config.get("model_type") or "unknown")
    return {
        "parent_model": parent,
        "format": "safetensors",
        "family": family,
        "families": [family],
        "parameter_size": _human(parameters(system, model)),
        "quantization_level": quantization(config),
    }


def parameters(system: System, model: str) -> int:
    """How many, by the bytes of the weights: exact where all are stored in the type that the config names."""
    files = system.catalog.files[model]
    quant = files.config.get("quantization_config")
    bits = quant.get("bits") if isinstance(quant, dict) else None
    if isinstance(quant, dict):
        method = str(quant.get("quant_method", ""))
        width = bits / 8 if isinstance(bits, int) and bits else 1.0 if "fp8" in method else 0.5
    else:
        width = min(_WIDTHS.get(_dtype(files.config), 2.0), 2.0)
    return int((files.weights_bytes - files.float32_bytes) / width + files.float32_bytes / 4)


def quantization(config: Any) -> str:
    quant = config.get("quantization_config")
    if isinstance(quant, dict):
        bits = quant.get("bits")
        return f"{quant.get('quant_method', 'quantized')}{f' {bits} bit' if bits else ''}".upper()
    dtype = _dtype(config)
    return _LEVELS.get(dtype, dtype.upper() or "unknown")


def _dtype(config: Any) -> str:
    inner = config.get("text_config")
    inner = inner if isinstance(inner, dict) else {}
    found = (
        config.get("dtype")
        or config.get("torch_dtype")
        or inner.get("dtype")
        or inner.get("torch_dtype")
        or ""
    )
    return str(found).removeprefix("torch.")


def _human(count: int) -> str:
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)
