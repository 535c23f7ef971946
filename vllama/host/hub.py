"""The Hugging Face cache as a list of complete models. Reads only; a broken model never breaks the list.

Layout: `models--ORG--NAME/{refs,snapshots,blobs}`. Synchronous: the caller runs it in a thread.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vllama.host.host import ModelFiles
from vllama.host.snapshot import read_snapshot

PREFIX = "models--"
Stamp = tuple[tuple[str, int], ...]


class Hub:
    """One cache folder. A model is read again only when one of its directories, or its ref, has changed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, tuple[Stamp, ModelFiles | None]] = {}

    def scan(self) -> tuple[ModelFiles, ...]:
        """The complete models, sorted by id. An absent cache folder is an empty one."""
        found: dict[str, tuple[Stamp, ModelFiles | None]] = {}
        for name in _folders(self._root):
            folder = self._root / name
            stamp = _stamp(folder)
            known = self._known.get(name)
            if known is not None and known[0] == stamp:
                found[name] = known
            else:
                found[name] = (stamp, _read_model(folder))
        self._known = found
        models = [model for _, model in found.values() if model is not None]
        return tuple(sorted(models, key=lambda model: model.id))


def _folders(root: Path) -> Iterator[str]:
    try:
        with os.scandir(root) as entries:
            yield from sorted(entry.name for entry in entries if entry.name.startswith(PREFIX))
    except OSError:
        return


def _stamp(folder: Path) -> Stamp:
    """Every time that changes when a file comes or goes: the directories down to the snapshots' own, and the ref.

    Downloads land in `blobs` as `.incomplete` and are renamed, so that folder's time changes with each; a snapshot's
    own subfolders are not looked at (weights live at its top).
    """
    top = os.fspath(folder)  # plain strings: this runs for each model, each second
    snapshots = f"{top}/snapshots"
    paths = [top, f"{top}/refs", f"{top}/refs/main", f"{top}/blobs", snapshots]
    with suppress(OSError):  # no snapshots: the other times say so
        for name in sorted(os.listdir(snapshots)):
            paths += [f"{snapshots}/{name}", f"{snapshots}/{name}/config.json"]  # a config is edited in place
    return tuple((path, _time_of(path)) for path in paths)


def _time_of(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _read_model(folder: Path) -> ModelFiles | None:
    model_id = folder.name.removeprefix(PREFIX).replace("--", "/")
    try:
        snapshot = _current_snapshot(folder)
        return read_snapshot(model_id, snapshot) if snapshot is not None else None
    except OSError:  # it vanished while it was read, or may not be read: then nobody can serve it either
        return None


def _current_snapshot(folder: Path) -> Path | None:
    """The snapshot of refs/main if it is there, else the newest one."""
    snapshots = folder / "snapshots"
    try:
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        revision = ""
    if revision and "/" not in revision and (snapshots / revision).is_dir():
        return snapshots / revision
    try:
        candidates = [path for path in snapshots.iterdir() if path.is_dir()]
    except OSError:
        return None
    return max(candidates, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)
