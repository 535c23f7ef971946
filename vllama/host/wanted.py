"""Which files of a hub's repository an engine can use: the rest of it is not pulled."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from vllama.errors import PullFailed

# Copies of the weights for other programs, and what is there for people to look at.
_FOLDERS = frozenset({"onnx", "openvino", "coreml", "original", "metal", "flax", "tf"})
_SUFFIXES = frozenset({
    ".onnx", ".h5", ".msgpack", ".ot", ".tflite", ".mlmodel", ".mlpackage", ".png", ".jpg", ".jpeg", ".gif", ".mp4", ".webp",
    ".pdf", ".zip",
})  # fmt: skip
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt"})
WEIGHTS = frozenset({".safetensors", ".gguf"}) | _PICKLES


def wanted(model: str, names: Iterable[str]) -> list[str]:
    """Small files first: a model counts as whole when its weights are there, so they are the last to come. Of several kinds of
    weights the one that vLLM prefers. Raises PullFailed."""
    kept = [name for name in names if _useful(name)]
    weights = [name for name in kept if _suffix(name) in WEIGHTS]
    small = [name for name in kept if _suffix(name) not in WEIGHTS]
    return sorted(small) + sorted(_preferred(model, weights))


def _preferred(model: str, weights: list[str]) -> list[str]:
    safe = [name for name in weights if _suffix(name) == ".safetensors"]
    if safe:
        sharded = [name for name in safe if not PurePosixPath(name).name.startswith("consolidated")]
        return sharded or safe
    if pickles := [name for name in weights if _suffix(name) in _PICKLES]:
        return pickles
    if len(weights) > 1:
        raise PullFailed(
            f"{model} has only GGUF files, {len(weights)} of them, and an engine takes one: bring it with "
            f"`hf download {model} FILE`. They are {', '.join(sorted(weights)[:5])}...",
            model=model,
        )
    return weights


def _useful(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and not _FOLDERS & set(path.parts[:-1]) and _suffix(name) not in _SUFFIXES


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
