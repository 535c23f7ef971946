"""The cache as a list of complete models: what is whole, what kind it is, how heavy it is."""

import json
import os
import struct
from pathlib import Path

import pytest

from vllama.host.host import ModelFiles
from vllama.host.hub import Hub
from vllama.host.snapshot import kind_of

CONFIG = {"architectures": ["Qwen3ForCausalLM"], "max_position_embeddings": 4096}


def tensors(*dtypes_and_bytes: tuple[str, int]) -> bytes:
    """A safetensors file with these tensors, all zero."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for index, (dtype, size) in enumerate(dtypes_and_bytes):
        header[f"w{index}"] = {"dtype": dtype, "shape": [size], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


class Cache:
    """A cache to fill file by file, its files links to blobs as huggingface_hub makes them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hub = Hub(root)

    def put(self, model: str, name: str, content: bytes | dict | None, revision: str = "r1") -> Path:
        """`content` None: a link to a blob that is not there (yet)."""
        folder = self.root / ("models--" + model.replace("/", "--"))
        link = folder / "snapshots" / revision / name
        blob = folder / "blobs" / f"{revision}-{name.replace('/', '-')}"
        for path in (link, blob):
            path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            blob.write_bytes(json.dumps(content).encode() if isinstance(content, dict) else content)
        if not link.is_symlink():
            link.symlink_to(blob)
        return blob

    def ref(self, model: str, revision: str, name: str = "main") -> None:
        path = self.root / ("models--" + model.replace("/", "--")) / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(revision)

    def whole(self, model: str, revision: str = "r1", config: dict | None = None) -> None:
        self.put(model, "config.json", config or CONFIG, revision)
        self.put(model, "model.safetensors", tensors(("BF16", 100)), revision)

    def ids(self) -> list[str]:
        return [model.id for model in self.hub.scan()]

    def one(self) -> ModelFiles:
        (model,) = self.hub.scan()
        return model


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "hub")


def test_no_cache_is_an_empty_one(cache: Cache) -> None:
    assert cache.ids() == []


def test_a_whole_model_with_all_its_facts(cache: Cache) -> None:
    cache.put("Org/Name", "config.json", CONFIG)
    cache.put("Org/Name", "model.safetensors", tensors(("F32", 400), ("BF16", 100)))
    cache.ref("Org/Name", "r1")
    model = cache.one()
    assert (model.id, model.revision, model.kind) == ("Org/Name", "r1", "chat")
    assert model.path == str(cache.root / "models--Org--Name" / "snapshots" / "r1")
    assert (model.weights_bytes, model.float32_bytes) == (500, 400)
    assert model.context_length == 4096
    assert model.config == CONFIG


def test_shards_are_added_and_each_must_be_there(cache: Cache) -> None:
    index = {
        "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}
    }
    cache.put("o/sharded", "config.json", CONFIG)
    cache.put("o/sharded", "model.safetensors.index.json", index)
    cache.put("o/sharded", "model-1.safetensors", tensors(("BF16", 10)))
    assert cache.ids() == []
    cache.put("o/sharded", "model-2.safetensors", None)  # dangling: its download runs
    assert cache.ids() == []
    cache.put("o/sharded", "model-2.safetensors", tensors(("BF16", 30)))
    assert cache.one().weights_bytes == 40


def test_what_is_not_whole_is_not_listed(cache: Cache) -> None:
    cache.put("o/no-weights", "config.json", CONFIG)
    cache.put("o/no-config", "model.safetensors", tensors(("BF16", 10)))
    cache.put("o/dangling", "config.json", CONFIG)
    cache.put("o/dangling", "model.safetensors", None)
    cache.put("o/dangling-config", "config.json", None)
    cache.put("o/dangling-config", "model.safetensors", tensors(("BF16", 10)))
    (cache.root / "models--o--empty" / "snapshots").mkdir(parents=True)
    (cache.root / "datasets--o--data").mkdir()
    (cache.root / "models--o--file").write_text("not a folder")
    assert cache.ids() == []


@pytest.mark.parametrize("config", [b"{ not json", b"[]", b"\xff\xfe", b"", b"null"])
def test_an_unreadable_config_is_listed_with_its_problem(cache: Cache, config: bytes) -> None:
    cache.whole("o/good")
    cache.put("o/bad", "config.json", config)
    cache.put("o/bad", "model.safetensors", tensors(("BF16", 10)))
    bad, good = cache.hub.scan()
    assert (bad.kind, dict(bad.config), bad.weights_bytes) == ("other", {}, 10)
    assert "config.json" in bad.problem
    assert (good.id, good.problem) == ("o/good", "")


@pytest.mark.parametrize(
    "weights", [b"", b"abc", struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 2) + b"[]"]
)
def test_garbage_weights_count_by_their_size(cache: Cache, weights: bytes) -> None:
    cache.put("o/garbage", "config.json", CONFIG)
    cache.put("o/garbage", "model.safetensors", weights)
    assert cache.one().weights_bytes == len(weights)


def test_pickled_weights_count_by_their_size(cache: Cache) -> None:
    cache.put("o/old", "config.json", CONFIG)
    cache.put("o/old", "pytorch_model.bin", bytes(77))
    assert cache.one().weights_bytes == 77


def test_the_ref_chooses_the_snapshot_and_without_it_the_newest(cache: Cache) -> None:
    cache.whole("o/m", "r1")
    cache.whole("o/m", "r2")
    cache.ref("o/m", "r1")
    assert cache.one().revision == "r1"
    cache.ref("o/m", "gone")
    os.utime(cache.root / "models--o--m" / "snapshots" / "r2", (2**31, 2**31))
    assert cache.one().revision == "r2"


def test_without_a_main_a_snapshot_that_is_half_there_does_not_hide_the_whole_one(cache: Cache) -> None:
    cache.whole("o/m", "r1")
    cache.put("o/m", "config.json", CONFIG, "r2")  # its weights are on their way
    os.utime(cache.root / "models--o--m" / "snapshots" / "r2", (2**31, 2**31))
    assert cache.one().revision == "r1"
    cache.whole("o/m", "r2")
    assert cache.one().revision == "r2"


def test_of_a_model_whose_revision_is_named_that_one_is_there_and_no_other(cache: Cache) -> None:
    for revision in ("r1", "r2", "r3"):
        cache.whole("o/m", revision)
    cache.whole("o/other", "r1")
    cache.ref("o/m", "r1")
    cache.ref("o/m", "r2", "next/one")

    def found(revision: str) -> list[tuple[str, str]]:
        return [(files.id, files.revision) for files in cache.hub.scan({"o/m": revision} if revision else {})]

    other = ("o/other", "r1")
    assert found("next/one") == [("o/m", "r2"), other]
    assert found("r3") == [("o/m", "r3"), other]  # a commit
    assert found("absent") == [other]
    assert found("main") == found("") == [("o/m", "r1"), other]
    found("next/one")
    cache.ref("o/m", "r3", "next/one")
    assert found("next/one") == [("o/m", "r3"), other]


def test_nothing_is_read_again_until_something_changes(cache: Cache) -> None:
    cache.whole("o/m")
    before = cache.one()
    assert cache.one() is before
    cache.whole("o/other")
    assert cache.hub.scan()[0] is before
    cache.put("o/m", "config.json", CONFIG | {"max_position_embeddings": 8192})
    assert cache.hub.scan()[0].context_length == 8192


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("Qwen3ForCausalLM", "chat"),
        ("GPT2LMHeadModel", "chat"),
        ("Qwen2_5_VLForConditionalGeneration", "chat"),
        ("ChatGLMModel", "chat"),
        ("BertModel", "embedding"),
        ("XLMRobertaModel", "embedding"),
        ("Qwen3ForSequenceClassification", "rerank"),
        ("XLMRobertaForSequenceClassification", "rerank"),
        ("WhisperForConditionalGeneration", "other"),
        ("BertForMaskedLM", "other"),
        ("", "other"),
    ],
)
def test_the_kind_follows_from_the_architecture(architecture: str, kind: str) -> None:
    assert kind_of(architecture, {}) == kind


def test_a_generator_in_sentence_transformers_layout_embeds(cache: Cache) -> None:
    cache.whole("Qwen/Qwen3-Embedding-0.6B")
    cache.put("Qwen/Qwen3-Embedding-0.6B", "modules.json", b"[]")
    cache.put("Qwen/Qwen3-Embedding-0.6B", "sentence_bert_config.json", {"max_seq_length": 256})
    model = cache.one()
    assert (model.kind, model.context_length) == ("embedding", 256)


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"architectures": ["X"], "text_config": {"max_position_embeddings": 99}}, 99),
        ({"architectures": ["X"], "n_positions": 1024}, 1024),
        ({"architectures": ["X"], "model_type": "xlm-roberta", "max_position_embeddings": 514}, 512),
        ({"architectures": ["X"], "max_position_embeddings": "many"}, 0),
        ({"architectures": 7}, 0),
    ],
)
def test_where_the_context_length_stands(cache: Cache, config: dict, length: int) -> None:
    cache.whole("o/m", config=config)
    assert cache.one().context_length == length
