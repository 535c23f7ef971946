"""Settings, folders and the cache: what a server would read and write."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vllama.cli.doctor.finding import Finding, broken, note, ok
from vllama.cli.render import size

if TYPE_CHECKING:
    from vllama.config import ModelConfig, VllamaConfig
    from vllama.host.host import ModelFiles

NAMED_MAX = 3
DISK_LEAST_BYTES = 10 * 2**30


def settings() -> "tuple[VllamaConfig | None, list[Finding]]":
    """The settings; None when they cannot be read."""
    from vllama.config import load_config
    from vllama.errors import ConfigError

    try:
        config = load_config()
    except ConfigError as error:
        return None, [
            broken("settings", error.message, "mend what it names; `vllama serve --help` has the common ones")
        ]
    given = {name: source for name, source in config.sources.items() if source != "default"}
    says = ", ".join(f"{name} ({source})" for name, source in given.items())
    strangers = [
        note("environment", each, "unset it, or give it the right name") for each in config.strangers
    ]
    return config, [ok("settings", says or "all at their defaults"), *strangers]


def folders(config: "VllamaConfig") -> Iterator[Finding]:
    """The folder of settings and logs, and models.yaml in it."""
    from vllama.config import load_models
    from vllama.errors import ConfigError

    yield _writable("folder", config.config_dir, "config_dir")
    try:
        models = load_models(config.models_file)
    except ConfigError as error:
        yield broken(
            "models.yaml", error.message, "mend that line; a server that runs keeps what it read last"
        )
        return
    if not config.models_file.exists():
        yield ok("models.yaml", f"there is none ({config.models_file}): every model has the defaults")
        return
    there = {files.id for files in _scan(config.transformers_cache, models)}
    if strangers := sorted(set(models) - there):
        says = f"{config.models_file}: {_some(strangers)} {'are' if len(strangers) > 1 else 'is'} not in the cache"
        yield note(
            "models.yaml", says, "`vllama pull` brings a model; `vllama assign --unset` takes keys out"
        )
    else:
        yield ok(
            "models.yaml", f"{config.models_file}: {len(models)} {'entry' if len(models) == 1 else 'entries'}"
        )


def cache(config: "VllamaConfig") -> Iterator[Finding]:
    """The models, and room for more."""
    folder = config.transformers_cache
    pull = "vllama pull Qwen/Qwen3-0.6B"
    if not folder.exists():
        yield note("cache", f"{folder} is not there: there is no model yet", pull)
        return
    if not os.access(folder, os.R_OK | os.X_OK):
        yield broken("cache", f"{folder} cannot be read by this user", f"chmod -R u+rX {folder}")
        return
    found = _scan(folder)
    wrong = [files.id for files in found if files.problem]
    if wrong:
        yield note("cache", f"{folder}: the files of {_some(wrong)} are broken", f"vllama pull {wrong[0]}")
    elif not found:
        yield note("cache", f"{folder} has no complete model", pull)
    else:
        yield ok("cache", f"{folder}: {len(found)} {'model' if len(found) == 1 else 'models'}")
    if not os.access(folder, os.W_OK):
        yield note(
            "cache",
            f"{folder} cannot be written by this user: `vllama pull` and `rm` cannot work",
            f"chown it to {_user()}",
        )
    free = shutil.disk_usage(folder).free
    if free < DISK_LEAST_BYTES:
        yield note("disk", f"{size(free)} are free below {folder}", "`vllama rm` makes room")
    else:
        yield ok("disk", f"{size(free)} are free below {folder}")


def _scan(folder: Path, models: "Mapping[str, ModelConfig] | None" = None) -> "tuple[ModelFiles, ...]":
    from vllama.config import revisions_of
    from vllama.host.hub import Hub

    return Hub(folder).scan(revisions_of(models or {}))


def _writable(about: str, folder: Path, setting: str) -> Finding:
    """Whether it can be written, or made."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return ok(about, f"{folder}" if there == folder else f"{folder} will be made")
    return broken(about, f"{folder} cannot be written by {_user()}", f"chown it, or choose another {setting}")


def _user() -> str:
    return os.environ.get("USER") or f"user {os.getuid()}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more
