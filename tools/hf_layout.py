"""A model in a Hugging Face cache appears whole or not at all: built aside, then renamed into place.

The layout is huggingface_hub's: `models--ORG--NAME/{blobs,refs,snapshots}`, snapshots being links to blobs by content.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

REVISION_CHARS = 40


def model_folder(hub: Path, model: str) -> Path:
    return hub / ("models--" + model.replace("/", "--"))


def snapshot(hub: Path, model: str) -> Path:
    """The folder with the model's files."""
    folder = model_folder(hub, model)
    return folder / "snapshots" / (folder / "refs" / "main").read_text(encoding="utf-8")


@contextlib.contextmanager
def workshop(hub: Path) -> Iterator[Path]:
    """An empty folder beside the models, for one builder at a time. What an interrupted one left is swept first."""
    hub.mkdir(parents=True, exist_ok=True)
    with open(hub / ".build.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in hub.glob(".build-*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=hub) as folder:
            yield Path(folder)


def publish(hub: Path, model: str, files: Path, work: Path) -> Path:
    """Moves the files into the cache as one snapshot, named by what they contain. `work` is on the cache's file system."""
    built = Path(tempfile.mkdtemp(dir=work))
    built.chmod(0o755)
    (built / "blobs").mkdir()
    (built / "refs").mkdir()
    digests = {path.relative_to(files): _digest(path) for path in sorted(files.rglob("*")) if path.is_file()}
    listing = "\n".join(f"{digest} {name}" for name, digest in digests.items())
    revision = hashlib.sha256(listing.encode()).hexdigest()[:REVISION_CHARS]
    for name, digest in digests.items():
        blob = built / "blobs" / digest
        shutil.move(files / name, blob)
        blob.chmod(0o644)
        link = built / "snapshots" / revision / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (built / "refs" / "main").write_text(revision, encoding="utf-8")
    built.rename(model_folder(hub, model))
    return snapshot(hub, model)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
