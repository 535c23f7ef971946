"""The Hugging Face cache as a list of complete models. Reads only; a broken model never breaks the list.

Layout: `models--ORG--NAME/{refs,snapshots,blobs}`. Synchronous: the caller runs it in a thread.
"""

import os
from collections.abc import Iterator, Mapping
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

    def scan(self, revisions: Mapping[str, str] | None = None) -> tuple[ModelFiles, ...]:
        """The complete models, sorted by id; of those in `revisions` the branch, tag or commit that is named there, and no other.
        An absent cache folder is an empty one."""
        found: dict[str, tuple[Stamp, ModelFiles | None]] = {}
        for name in _folders(self._root):
            folder, model = self._root / name, name.removeprefix(PREFIX).replace("--", "/")
            revision = (revisions or {}).get(model, "")
            stamp = _stamp(folder, revision)
            known = self._known.get(name)
            if known is not None and known[0] == stamp:
                found[name] = known
            else:
                found[name] = (stamp, _read_model(model, folder, revision))
        self._known = found
        models = [model for _, model in found.values() if model is not None]
        return tuple(sorted(models, key=lambda model: model.id))


def _folders(root: Path) -> Iterator[str]:
    try:
        with os.scandir(root) as entries:
            yield from sorted(entry.name for entry in entries if entry.name.startswith(PREFIX))
    except OSError:
        return


def _stamp(folder: Path, revision: str) -> Stamp:
    """Every time that changes when a file comes or goes: the directories down to the snapshots' own, and the ref; with its name.

    Downloads land in `blobs` as `.incomplete` and are renamed, so that folder's time changes with each; a snapshot's
    own subfolders are not looked at (weights live at its top).
    """
    top = os.fspath(folder)  # plain strings: this runs for each model, each second
    snapshots = f"{top}/snapshots"
    paths = [top, f"{top}/refs", f"{top}/refs/{revision or 'main'}", f"{top}/blobs", snapshots]
    with suppress(OSError):  # no snapshots: the other times say so
        for name in sorted(os.listdir(snapshots)):
            paths += [f"{snapshots}/{name}", f"{snapshots}/{name}/config.json"]  # a config is edited in place
    return tuple((path, _time_of(path)) for path in paths)


def _time_of(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _read_model(model: str, folder: Path, revision: str) -> ModelFiles | None:
    try:
        found = (read_snapshot(model, snapshot) for snapshot in _snapshots(folder, revision))
        return next(filter(None, found), None)
    except OSError:  # it vanished while it was read, or may not be read: then nobody can serve it either
        return None


def _snapshots(folder: Path, revision: str) -> list[Path]:
    """The snapshot of the revision, or of main; where there is no main all of them, the newest first: one may be half there."""
    snapshots = folder / "snapshots"
    try:
        commit = (folder / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = revision  # which may be a commit
    if commit and "/" not in commit and (snapshots / commit).is_dir():
        return [snapshots / commit]
    if revision:
        return []
    try:
        candidates = [path for path in snapshots.iterdir() if path.is_dir()]
    except OSError:
        return []
    return sorted(candidates, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
