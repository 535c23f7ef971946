"""The model cache of this machine with no server at hand: looked at, filled, emptied by the host's own hands.

A wrong setting is a ValueError, which ends the command as a wrong use of it; a wrong models.yaml is an answer.
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from vllama.cli.client import AnswerError
from vllama.cli.folders import settings


def listed() -> list[dict[str, Any]]:
    """The complete models, as GET /control/models has them, but for a state that they have not. Raises ValueError,
    AnswerError."""
    from vllama.config import load_models, revisions_of
    from vllama.errors import ConfigError
    from vllama.host.hub import Hub

    config = settings()
    try:
        entries = load_models(config.models_file)
    except ConfigError as error:
        raise AnswerError(error.message, error.code) from error
    return [
        {
            "model": files.id,
            "kind": files.kind,
            "size_bytes": files.weights_bytes,
            "modified_at": files.modified_at,
            "revision": files.revision,
            "context_length": files.context_length,
            "aliases": list(entries[files.id].aliases) if files.id in entries else [],
            "problem": files.problem,
            "phase": "",
            "level": 0,
        }
        for files in Hub(config.transformers_cache).scan(revisions_of(entries))
    ]


def card(name: str) -> dict[str, Any]:
    """What a server would know a name as: its model's id and kind. Raises ValueError, AnswerError for one that means none."""
    from vllama.config import load_models, revisions_of
    from vllama.errors import VllamaError
    from vllama.host.hub import Hub
    from vllama.names import Names

    cache, file = settings().transformers_cache, settings().models_file
    try:
        entries = load_models(file)
        files = {each.id: each for each in Hub(cache).scan(revisions_of(entries))}
        known = Names(files, entries)
        route = known.find(name)
        if route is None:
            raise known.unknown(name, str(cache))
    except VllamaError as error:
        raise AnswerError(error.message, error.code) from error
    told_otherwise = route.model in entries and entries[route.model].extra_args  # maybe vLLM's --runner
    return {"id": route.model, "kind": "" if told_otherwise else files[route.model].kind}


def pulled(model: str, revision: str, told: Callable[[dict[str, Any]], None]) -> None:
    """The model is in the cache. Raises ValueError, AnswerError; Ctrl-C leaves what there is for the next time."""
    import uvloop

    from vllama.errors import VllamaError
    from vllama.host.store import pulling

    cache = settings().transformers_cache

    def served() -> str:
        return next((str(each["revision"]) for each in listed() if each["model"] == model), "")

    async def pull() -> None:
        cache.mkdir(parents=True, exist_ok=True)
        async with pulling(cache, model, revision) as steps:
            async for step in steps:
                done = step.status == "success"
                told(asdict(replace(step, served=served()) if done else step))

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the server has it
            runner.run(pull())
    except VllamaError as error:
        raise AnswerError(error.message, error.code) from error
    except OSError as error:
        raise AnswerError(f"{model} cannot be pulled: {error}", "pull_failed") from error


def removed(name: str) -> dict[str, Any]:
    """The model's files are gone, or the alias is. Raises ValueError, AnswerError."""
    from vllama.errors import VllamaError
    from vllama.host.store import remove

    cache = settings().transformers_cache
    try:
        model = _owner(name)
        if model != name:
            _edit(model, lambda names: [each for each in names if each != name])
            return {"model": model, "alias": name, "freed_bytes": 0}
        return {"model": model, "alias": "", "freed_bytes": remove(cache, model)}
    except VllamaError as error:
        raise AnswerError(error.message, error.code) from error
    except OSError as error:
        raise AnswerError(f"{name} cannot be removed: {error}", "remove_failed") from error


def copied(source: str, destination: str) -> dict[str, Any]:
    """The model has one more name. Raises ValueError, AnswerError."""
    from vllama.errors import ConfigError
    from vllama.host.hub import Hub

    try:
        model = _owner(source)
        there = {files.id for files in Hub(settings().transformers_cache).scan()}
        if model not in there:
            raise AnswerError(f"{source} is not in the cache: `vllama list` shows what is", "model_not_found")
        if destination in there and destination != model:
            raise AnswerError(
                f"{destination} is a model of its own; choose another name for {model}", "bad_request"
            )
        if destination != model:
            _edit(model, lambda names: names if destination in names else [*names, destination])
    except ConfigError as error:
        raise AnswerError(error.message, error.code) from error
    return {"model": model, "alias": destination}


def _owner(name: str) -> str:
    """The model that a name means, by models.yaml alone: itself, or that of an alias. Raises ValueError, ConfigError."""
    from vllama.config import load_models

    models = load_models(settings().models_file)
    return next((model for model, entry in models.items() if name in entry.aliases), name)


def _edit(model: str, change: Callable[[list[str]], list[str]]) -> None:
    """Another set of aliases in its entry. Raises ValueError, ConfigError."""
    from vllama.models_file import edit

    def changed(entry: dict[str, Any]) -> None:
        names = change(list(entry.get("aliases") or ()))
        if names:
            entry["aliases"] = names
        else:
            entry.pop("aliases", None)

    edit(settings().models_file, model, changed)
