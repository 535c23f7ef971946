"""What engines were measured to take, by model, configuration and device; kept in a file that may be deleted at any time.

A measurement, no state: the cores hear of it as the need that a model is created, configured or calibrated with. The file is
read once and written in one step whenever a figure has changed; what is wrong with it costs a warning and the figures.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vllama.host.estimate import Footprint

VERSION = 1
CONFIGURATIONS_MAX = 4  # of each model: the latest
CHANGE_PART = 0.01  # a figure that has moved by less is not worth a write
_FIELDS = tuple(field.name for field in dataclasses.fields(Footprint))

log = logging.getLogger(__name__)


class Key(NamedTuple):
    """A model, and a digest of all that its engine is started with."""

    model: str
    digest: str


class Footprints:
    """One writer: the loop. `take_news` gives the text to write, `write` may be called in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._salt = os.urandom(16)  # an `env` must not be guessed from the digests
        self._common: object = None
        self._found: dict[Key, dict[str, Footprint]] = {}
        self._at: dict[Key, float] = {}
        self._dirty = False

    def load(self, common: object) -> str:
        """Read the file; `common` is what holds for every engine (vLLM's version). Returns what is wrong with it, or ""."""
        self._common = common
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            return f"{self.path} cannot be read and is ignored: {error}"
        try:
            salt, found, at = _parsed(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return f"{self.path} is broken and is ignored ({error!r}); the next measurement replaces it"
        self._salt, self._found, self._at = salt, found, at
        return ""

    def key(self, model: str, settings: Mapping[str, Any]) -> Key:
        """Under which the figures of an engine with these settings are kept."""
        text = json.dumps([settings, self._common], sort_keys=True, default=str).encode()
        return Key(model, hashlib.blake2s(text, key=self._salt, digest_size=8).hexdigest())

    def of(self, key: Key) -> Mapping[str, Footprint]:
        """What was measured, by device."""
        return self._found.get(key, {})

    def awake(self, key: Key, devices: Iterable[str], size: int, kv_bytes: int) -> bool:
        """An awake engine was weighed. True when this is news."""
        return self._note(key, devices, awake_bytes=size, kv_bytes=kv_bytes)

    def asleep(self, key: Key, devices: Iterable[str], level: int, size: int) -> bool:
        """A sleeper was weighed. True when this is news."""
        return self._note(key, devices, **{f"level_{level}_bytes": size})

    def _note(self, key: Key, devices: Iterable[str], **figures: int) -> bool:
        news = False
        for device in devices:
            before = self._found.get(key, {}).get(device, Footprint())
            if any(abs(size - getattr(before, name)) > CHANGE_PART * size for name, size in figures.items()):
                self._found.setdefault(key, {})[device] = dataclasses.replace(before, **figures)
                self._at[key] = time.time()
                news = self._dirty = True
        return news

    def take_news(self) -> str:
        """The file's text, if a figure has changed since the last call, else ""."""
        if not self._dirty:
            return ""
        self._dirty = False
        self._forget_oldest()
        return json.dumps(self._tree(), indent=1)

    def write(self, text: str) -> None:
        """The whole file in one step. One that cannot be written costs a warning."""
        try:
            _replace(self.path, text)
        except OSError as error:
            log.warning("%s cannot be written, footprints are not kept: %s", self.path, error)

    def _forget_oldest(self) -> None:
        for model in {key.model for key in self._found}:
            keys = sorted((key for key in self._found if key.model == model), key=lambda key: self._at[key])
            for key in keys[:-CONFIGURATIONS_MAX]:
                del self._found[key], self._at[key]

    def _tree(self) -> dict[str, Any]:
        models: dict[str, Any] = {}
        for key, devices in self._found.items():
            figures = {device: dataclasses.asdict(found) for device, found in devices.items()}
            models.setdefault(key.model, {})[key.digest] = {"at": self._at[key], "devices": figures}
        return {"v": VERSION, "salt": self._salt.hex(), "models": models}


def _parsed(tree: Any) -> tuple[bytes, dict[Key, dict[str, Footprint]], dict[Key, float]]:
    """Raises ValueError, TypeError, KeyError, AttributeError."""
    if tree["v"] != VERSION:
        raise ValueError(f"version {tree['v']}, not {VERSION}")
    salt = bytes.fromhex(tree["salt"])
    if not 8 <= len(salt) <= 32:
        raise ValueError("no salt")
    found: dict[Key, dict[str, Footprint]] = {}
    at: dict[Key, float] = {}
    for model, configurations in tree["models"].items():
        for digest, entry in configurations.items():
            key = Key(model, digest)
            found[key] = {device: _footprint(figures) for device, figures in entry["devices"].items()}
            at[key] = float(entry["at"])
    return salt, found, at


def _footprint(figures: Mapping[str, Any]) -> Footprint:
    if any(type(figures[name]) is not int or figures[name] < 0 for name in _FIELDS):
        raise ValueError(f"no footprint: {figures}")
    return Footprint(**{name: figures[name] for name in _FIELDS})


def _replace(path: Path, text: str) -> None:
    """The new text in one step, for its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
