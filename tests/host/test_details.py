"""What a model's files say when an operator asks."""

import json
import struct
from pathlib import Path

import pytest

from vllama.host.details import details


def tensors(path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def test_parameters_and_types_are_counted_over_all_files(tmp_path: Path):
    tensors(
        tmp_path / "a.safetensors",
        {"w": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, "__metadata__": {}},
    )
    tensors(tmp_path / "b.safetensors", {"v": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.txt").write_text("abc")
    found = details(str(tmp_path), {})
    assert (found.parameters, dict(found.dtypes), found.quantization) == (10, {"BF16": 12, "F32": 16}, "")
    assert [name for name, _ in found.files] == ["a.safetensors", "b.safetensors", "sub/x.txt"]
    assert found.size_bytes == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"quant_method": "awq", "bits": 4}, "awq 4-bit"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes 4-bit"),
        ({"quant_method": "fp8"}, "fp8"),
        ({}, ""),
        ("awq", ""),
    ],
)
def test_quantization_is_named(tmp_path: Path, config: object, words: str):
    assert details(str(tmp_path), {"quantization_config": config}).quantization == words


def test_packed_weights_do_not_tell_how_many_parameters_they_are(tmp_path: Path):
    tensors(tmp_path / "a.safetensors", {"w": {"dtype": "I32", "shape": [8], "data_offsets": [0, 32]}})
    assert (
        details(str(tmp_path), {"quantization_config": {"quant_method": "gptq", "bits": 4}}).parameters == 0
    )


@pytest.mark.parametrize(
    "header",
    [[], {"w": 1}, {"w": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 1]}}, {"w": {"dtype": "F32", "shape": [1]}},
     {"w": {"dtype": [], "shape": [1], "data_offsets": [0, 1]}}, {"w": {"dtype": "F32", "shape": [1], "data_offsets": [1]}}],
)  # fmt: skip
def test_a_header_that_is_none_counts_nothing(tmp_path: Path, header: object):
    tensors(tmp_path / "a.safetensors", header)
    assert details(str(tmp_path), {}).parameters == 0
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 12)
    assert details(str(tmp_path), {}).parameters == 0
