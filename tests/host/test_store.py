"""A model comes from a hub into the cache, and goes from it: whole or not at all, from where it stopped, checked."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import huggingface_hub
import pytest
from serving import wait_until

from tests.fakes.fake_hub import FakeHub, model_files
from vllama.errors import BadRequest, ModelUnknown, PullFailed
from vllama.host.host import PullStep
from vllama.host.hub import Hub
from vllama.host.store import check_names, pulling, remove
from vllama.host.wanted import wanted

MODEL = "tiny/chat"
WEIGHTS_BYTES = 300_000
BOUND_S = 60.0


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with FakeHub() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        yield found


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "hub"
    folder.mkdir()
    return folder


async def _pull(cache: Path, revision: str = "main", model: str = MODEL) -> list[PullStep]:
    async with pulling(cache, model, revision) as steps:
        return [step async for step in steps]


def pull(cache: Path, revision: str = "main", model: str = MODEL) -> list[PullStep]:
    return asyncio.run(_pull(cache, revision, model))


def bytes_there(cache: Path) -> int:
    """Of the files that are not whole yet."""
    return sum(path.stat().st_size for path in cache.glob("**/*.incomplete"))


def test_a_pulled_model_is_whole_and_lies_where_huggingface_hub_looks(hub: FakeHub, cache: Path) -> None:
    commit = hub.put(MODEL, model_files(weights_bytes=WEIGHTS_BYTES) | {"1_Pooling/config.json": b"{}"})
    steps = pull(cache)
    assert [steps[0].status, steps[-2].status] == ["pulling manifest", "writing manifest"]
    assert (steps[-1].status, steps[-1].revision) == ("success", commit)
    of_weights = [step for step in steps if step.file == "model.safetensors"]
    assert of_weights[-1].completed == of_weights[-1].total > WEIGHTS_BYTES
    assert of_weights[-1].digest.startswith("sha256:")
    assert [step.completed for step in of_weights] == sorted(step.completed for step in of_weights)
    [found] = Hub(cache).scan()
    assert (found.id, found.revision, found.problem) == (MODEL, commit, "")
    path = huggingface_hub.snapshot_download(
        MODEL, cache_dir=cache, local_files_only=True, allow_patterns="*.json"
    )
    assert path == found.path
    assert (Path(path) / "1_Pooling" / "config.json").read_bytes() == b"{}"
    assert not list(cache.glob("**/*.incomplete"))


def test_huggingface_hub_itself_takes_the_fake_for_a_hub(hub: FakeHub, cache: Path) -> None:
    """What holds the fake to the real protocol: the real client."""
    commit = hub.put(MODEL, model_files())
    api = huggingface_hub.HfApi(endpoint=hub.url)
    info = api.model_info(MODEL, files_metadata=True)
    assert (info.sha, {file.rfilename for file in info.siblings or ()}) == (commit, set(model_files()))
    path = huggingface_hub.hf_hub_download(MODEL, "model.safetensors", cache_dir=cache, endpoint=hub.url)
    assert Path(path).read_bytes() == model_files()["model.safetensors"]
    # And where it has put them, a pull has nothing to do.
    before = hub.requests.copy()
    pull(cache)
    assert not [key for key in hub.requests - before if key[0] == "GET" and "safetensors" in key[1]]


def test_a_broken_connection_is_gone_on_from(hub: FakeHub, cache: Path) -> None:
    hub.put(MODEL, model_files(weights_bytes=WEIGHTS_BYTES))
    hub.cut("model.safetensors", 100_000)
    assert pull(cache)[-1].status == "success"
    assert hub.ranges == ["bytes=100000-", "bytes=100000-"]  # of the hub and of its store


def test_a_pull_that_was_left_goes_on_from_where_it_was(hub: FakeHub, cache: Path) -> None:
    hub.put(MODEL, model_files(weights_bytes=WEIGHTS_BYTES))
    hub.hold("model.safetensors", 100_000)

    async def leave() -> None:
        async with pulling(cache, MODEL, "main") as steps, aclosing(steps):  # type: ignore[type-var]
            async for step in steps:
                if step.file == "config.json":
                    break
            await asyncio.to_thread(hub.until_held, "model.safetensors")
            assert await asyncio.to_thread(wait_until, lambda: bytes_there(cache) >= 100_000, BOUND_S)

    asyncio.run(leave())
    hub.go_on("model.safetensors")
    assert Hub(cache).scan() == ()  # half a model is none
    assert hub.ranges == []
    assert pull(cache)[-1].status == "success"
    assert "bytes=100000-" in hub.ranges


def test_a_store_without_ranges_begins_again(hub: FakeHub, cache: Path) -> None:
    hub.takes_ranges = False
    hub.put(MODEL, model_files(weights_bytes=WEIGHTS_BYTES))
    hub.cut("model.safetensors", 100_000)
    assert pull(cache)[-1].status == "success"
    assert len(Hub(cache).scan()) == 1


def test_bytes_that_are_not_the_hubs_are_thrown_away(hub: FakeHub, cache: Path) -> None:
    hub.put(MODEL, model_files())
    hub.spoil("model.safetensors")
    with pytest.raises(PullFailed, match="is not what the hub says it is"):
        pull(cache)
    assert Hub(cache).scan() == ()
    assert pull(cache)[-1].status == "success"


def test_a_mirror_that_lists_no_blobs_is_asked_file_by_file(hub: FakeHub, cache: Path) -> None:
    hub.blobs = False
    hub.put(MODEL, model_files())
    assert pull(cache)[-1].status == "success"
    assert len(Hub(cache).scan()) == 1


def test_a_new_commit_is_the_models_only_when_it_is_whole(hub: FakeHub, cache: Path) -> None:
    first = hub.put(MODEL, model_files())
    pull(cache)
    second = hub.put(MODEL, model_files(weights_bytes=WEIGHTS_BYTES))
    hub.spoil("model.safetensors")
    with pytest.raises(PullFailed):
        pull(cache)
    assert [model.revision for model in Hub(cache).scan()] == [first]
    pull(cache)
    assert [model.revision for model in Hub(cache).scan()] == [second]


def test_another_revision_has_its_own_ref(hub: FakeHub, cache: Path) -> None:
    hub.put(MODEL, model_files())
    other = hub.put(MODEL, model_files(weights_bytes=WEIGHTS_BYTES), "next/one")
    assert pull(cache, "next/one")[-1].revision == other
    refs = cache / "models--tiny--chat" / "refs"
    assert (refs / "next" / "one").read_text() == other
    assert not (refs / "main").exists()
    assert pull(cache, other)[-1].revision == other


def test_what_the_hub_refuses_is_said(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelUnknown, match="there is no model 'tiny/none'"):
        pull(cache, model="tiny/none")
    hub.put(MODEL, model_files())
    with pytest.raises(ModelUnknown, match="has no revision 'v9'"):
        pull(cache, "v9")
    hub.gated.add(MODEL)
    with pytest.raises(PullFailed, match="gated: ask for access"):
        pull(cache)
    hub.gated.clear()
    hub.private[MODEL] = "hf_secret"
    with pytest.raises(ModelUnknown, match="HF_TOKEN"):
        pull(cache)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert pull(cache)[-1].status == "success"
    hub.put("tiny/empty", {"README.md": b"x", "config.json": b"{}"})
    with pytest.raises(PullFailed, match=r"no config\.json with weights"):
        pull(cache, model="tiny/empty")


def test_a_hub_that_is_busy_is_asked_again_and_one_that_is_not_there_is_named(
    hub: FakeHub, cache: Path
) -> None:
    hub.put(MODEL, model_files())
    hub.down = 2
    assert pull(cache)[-1].status == "success"
    hub.__exit__()
    with pytest.raises(PullFailed, match="cannot be reached"):
        pull(cache)
    hub.__exit__ = lambda *_: None  # type: ignore[method-assign]


def test_an_offline_server_pulls_nothing(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PullFailed, match="HF_HUB_OFFLINE"):
        pull(cache)
    assert not hub.requests


@pytest.mark.parametrize("model", ["", "../x", "a/b/c", "/etc", "a--b/c", "a/..", "-x/y", "a b/c", "x" * 97])
def test_no_name_leads_out_of_the_cache(model: str) -> None:
    with pytest.raises(BadRequest):
        check_names(model)


@pytest.mark.parametrize("revision", ["", "../../x", "/x", "a//b", "a b"])
def test_no_revision_does_either(revision: str) -> None:
    with pytest.raises(BadRequest):
        check_names(MODEL, revision)


def test_no_file_name_does_either(hub: FakeHub, cache: Path) -> None:
    hub.put(MODEL, model_files() | {"../../evil.json": b"{}"})
    with pytest.raises(PullFailed, match="leads out of its folder"):
        pull(cache)
    assert not (cache / "evil.json").exists()


def test_of_several_kinds_of_weights_the_one_that_vllm_prefers_comes_last() -> None:
    names = [
        "model.safetensors",
        "pytorch_model.bin",
        "config.json",
        "onnx/model.onnx",
        "tf_model.h5",
        ".gitattributes",
    ]
    assert wanted("m", names) == ["config.json", "model.safetensors"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert wanted("m", [*shards, "consolidated.safetensors"]) == shards
    assert wanted("m", ["consolidated.safetensors"]) == ["consolidated.safetensors"]
    assert wanted("m", ["pytorch_model.bin", "q4.gguf"]) == ["pytorch_model.bin"]
    assert wanted("m", ["q4.gguf"]) == ["q4.gguf"]
    with pytest.raises(PullFailed, match="only GGUF files"):
        wanted("m", ["q4.gguf", "q8.gguf"])


def test_a_removed_model_is_gone_and_its_bytes_are_counted(hub: FakeHub, cache: Path) -> None:
    hub.put(MODEL, model_files(weights_bytes=WEIGHTS_BYTES))
    pull(cache)
    (cache / ".removed-left").mkdir()  # of a removal that was cut off
    assert remove(cache, MODEL) > WEIGHTS_BYTES
    assert Hub(cache).scan() == ()
    assert not (cache / "models--tiny--chat").exists()
    assert not list(cache.glob(".removed-*"))
    with pytest.raises(ModelUnknown, match="no files"):
        remove(cache, MODEL)
