"""Edits `models.yaml` for people who edit it too: comments, order and every other model stay. A leaf.

One writer at a time, by a lock beside the file; the new text is checked before it takes the old one's place, in one step. A file
that is wrong is never overwritten.
"""

import fcntl
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vllama import yamlfile
from vllama.config import ModelConfig, models_of
from vllama.errors import ConfigError

EXAMPLE = "Qwen/Qwen3-0.6B:"
MODE = 0o644


def edit(path: Path, model: str, change: Callable[[dict[str, Any]], None]) -> tuple[int, ModelConfig]:
    """Let `change` have this model's entry; the line of the entry, and what it says now. Raises ConfigError."""
    with _locked(path):
        text = _read(path)
        models_of(yamlfile.parse(path, text, EXAMPLE))
        new = _changed(text, model, change)
        document = yamlfile.parse(path, new, EXAMPLE)
        entry = models_of(document).get(model, ModelConfig())
        if new != text:
            _replace(path, new)
    return document.lines.get((model,), 0), entry


def put(entry: dict[str, Any], values: Mapping[str, Any], unset: tuple[str, ...] = ()) -> None:
    """Set these keys; a mapping is merged into the one that is there. `unset` takes keys out, `extra_args.NAME` one of a
    mapping. Raises ConfigError for a key that no entry can have."""
    for name in unset:
        key, _, inner = name.partition(".")
        if key not in ModelConfig.model_fields:
            raise ConfigError(
                f"--unset {name}: there is no such key; keys are {', '.join(ModelConfig.model_fields)}"
            )
        if not inner:
            entry.pop(key, None)
        elif isinstance(entry.get(key), dict):
            entry[key].pop(inner, None)
            if not entry[key]:
                del entry[key]
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(entry.get(key), dict):
            entry[key].update(value)
        else:
            entry[key] = value


def _changed(text: str, model: str, change: Callable[[dict[str, Any]], None]) -> str:
    """The text after the change, in the indentation that it has."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.util import load_yaml_guess_indent

    _, indent, offset = load_yaml_guess_indent(text) if text.strip() else (None, None, None)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 2**16  # no line of theirs is folded
    yaml.indent(mapping=indent or 2, sequence=indent or 2, offset=offset or 0)
    tree = yaml.load(text)
    if tree is None:
        tree = CommentedMap()
    entry = tree.get(model)
    fresh = entry is None
    if fresh:
        entry = CommentedMap()
    change(entry)
    if fresh and entry:
        tree[model] = entry
    elif not fresh and not entry:
        del tree[model]
    if not tree:
        return "" if not text.strip() or text.lstrip()[0] != "#" else _comments(text)
    out = io.StringIO()
    yaml.dump(tree, out)
    new = out.getvalue()
    return text + new if not text.strip().startswith(("%", "---")) and _only_comments(text) else new


def _only_comments(text: str) -> bool:
    """A file of comments alone is nothing to the YAML library, which would drop them."""
    return all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines())


def _comments(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if _only_comments(line))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among all who edit by this module. The lock is a file of its own: the edited one is replaced."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
    except OSError as error:
        raise ConfigError(f"{path.parent} cannot be written: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _replace(path: Path, text: str) -> None:
    """The new text in one step: who reads meanwhile has the old file or the new one, whole. A link stays a link."""
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode & 0o7777 if target.exists() else MODE
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}") from error
