"""A model appears in the cache whole or not at all, as huggingface_hub would have put it there."""

from pathlib import Path

import hf_layout
import pytest


def files_of(folder: Path, **contents: str) -> Path:
    folder.mkdir()
    for name, text in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


def test_published_model_has_the_layout_of_huggingface_hub(tmp_path):
    hub = tmp_path / "hub"
    with hf_layout.workshop(hub) as work:
        files = files_of(work / "files", config="{}", sub__pooling="{}", weights="w")
        at = hf_layout.publish(hub, "org/name", files, work)
    folder = hub / "models--org--name"
    revision = (folder / "refs" / "main").read_text()
    assert at == folder / "snapshots" / revision
    assert len(revision) == 40
    assert (at / "sub" / "pooling").read_text() == "{}"
    assert (at / "weights").is_symlink()
    assert (at / "weights").resolve().parent == folder / "blobs"
    assert len(list((folder / "blobs").iterdir())) == 2, "equal files are one blob"


def test_same_files_give_the_same_revision(tmp_path):
    hubs = [tmp_path / "one", tmp_path / "two"]
    revisions = []
    for hub in hubs:
        with hf_layout.workshop(hub) as work:
            revisions.append(
                hf_layout.publish(hub, "m", files_of(work / "f", config="{}", weights="w"), work).name
            )
    assert revisions[0] == revisions[1]


def test_interrupted_build_leaves_no_model_and_is_swept_by_the_next(tmp_path):
    hub = tmp_path / "hub"
    with pytest.raises(NotADirectoryError), hf_layout.workshop(hub) as work:
        hf_layout.publish(hub, "org/name", files_of(work / "files", config="{}"), work / "files" / "config")
    assert not list(hub.glob("models--*"))
    (hub / ".build-killed").mkdir()
    with hf_layout.workshop(hub):
        assert not (hub / ".build-killed").exists()
    assert not list(hub.glob(".build-*"))
