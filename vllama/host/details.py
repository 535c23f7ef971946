"""What a model's files say beyond what serving it needs: each file, its parameters, how it is quantized. Read when asked for.

Synchronous: the caller runs it in a thread.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllama.host.snapshot import HEADER_BYTES_MAX

PACKED = (
    "I32",
    "U8",
    "I8",
    "I64",
    "U32",
)  # what packed weights are stored as: their count is not the parameters'


@dataclass(frozen=True, slots=True)
class Details:
    """`parameters` is 0 where the files do not say; `dtypes` are bytes by the type in which tensors are stored."""

    files: tuple[tuple[str, int], ...]
    parameters: int
    dtypes: Mapping[str, int]
    quantization: str

    @property
    def size_bytes(self) -> int:
        return sum(size for _, size in self.files)


def details(path: str, config: Mapping[str, object]) -> Details:
    """Of the snapshot in this folder. A file that vanishes meanwhile counts nothing."""
    folder = Path(path)
    found: list[tuple[str, int]] = []
    for file in sorted(folder.rglob("*")):
        try:
            if file.is_file():
                found.append((file.relative_to(folder).as_posix(), file.stat().st_size))
        except OSError:
            continue
    parameters, dtypes = 0, dict[str, int]()
    for name, _ in found:
        if name.endswith(".safetensors"):
            for tensor in _tensors(folder / name):
                count = math.prod(tensor["shape"])
                begin, end = tensor["data_offsets"]
                dtypes[tensor["dtype"]] = dtypes.get(tensor["dtype"], 0) + end - begin
                parameters += count
    quantization = _quantization(config)
    if quantization and any(dtype in PACKED for dtype in dtypes):
        parameters = 0
    return Details(tuple(found), parameters, dtypes, quantization)


def _tensors(path: Path) -> list[dict[str, Any]]:
    """The header's entries; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(HEADER_BYTES_MAX, path.stat().st_size):
                return []
            header = json.loads(file.read(length))
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        for entry in entries:
            if not all(type(number) is int for number in (*entry["shape"], *entry["data_offsets"])):
                return []
            if len(entry["data_offsets"]) != 2 or not isinstance(entry["dtype"], str):
                return []
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return entries


def _quantization(config: Mapping[str, object]) -> str:
    """The method and its bits, as far as config.json says: "awq 4-bit"; "" for none."""
    given = config.get("quantization_config")
    if not isinstance(given, dict) or not given:
        return ""
    method = str(given.get("quant_method") or given.get("quant_algo") or "quantized")
    bits = given.get("bits") or given.get("w_bit")
    for name in ("load_in_4bit", "load_in_8bit"):  # bitsandbytes
        if given.get(name) is True:
            bits = name[8]
    return f"{method} {bits}-bit" if bits else method
