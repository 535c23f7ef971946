"""What changes which models there are: a pull from the hub, a removal, one more name for a model."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from vllama.actors.core.messages import Phase
from vllama.actors.system import System
from vllama.errors import BadRequest, ModelInUse, ModelUnknown, ShuttingDown
from vllama.host.host import ModelFiles, PullStep
from vllama.host.snapshot import read_template
from vllama.models_file import edit


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal took: a model with its files, or (`alias`) a name of `model` alone."""

    model: str
    alias: str = ""
    freed_bytes: int = 0


@asynccontextmanager
async def pull(system: System, model: str, revision: str = "main") -> AsyncIterator[AsyncIterator[PullStep]]:
    """A pull under way, step by step; left early it ends. When the last step is out the model is listed. Raises VllamaError."""
    if system.stopping:
        raise ShuttingDown("vllama is shutting down; pull again later", model=model, retry_after_s=5)
    async with system.host.pull(model, revision) as steps:
        yield _listed(system, model, steps)


async def _listed(system: System, model: str, steps: AsyncIterator[PullStep]) -> AsyncIterator[PullStep]:
    async for step in steps:
        if step.status == "success":
            await system.catalog.refresh()
            files = system.catalog.files.get(model)
            step = replace(step, served=files.revision if files is not None else "")
        yield step


async def delete(system: System, name: str, *, stop: bool = False) -> Removed:
    """An alias goes from models.yaml, a model goes from the cache. One with an engine is refused, unless it is to be stopped
    first. Raises ModelUnknown, ModelInUse, ConfigError."""
    route = await system.route(name)
    model = route.model
    if name in system.catalog.of(model).aliases:
        await _edit(system, model, lambda entry: _without(entry, name))
        return Removed(model, alias=name)
    if route.served != model:
        raise BadRequest(
            f"{name} is an adapter of {model}, no model of its own: take it out of models.yaml", model=model
        )
    if model not in system.catalog.files:
        raise ModelUnknown(f"{model} has no files any more; its engine runs on", model=model)
    state = system.journal.states.instance(model)
    if state is not None and state.phase not in (Phase.STOPPED, Phase.FAILED):
        if not stop:
            raise ModelInUse(
                f"{model} has an engine: `vllama stop {model}` ends it, then it can be removed", model=model
            )
        await system.command("stop", model)
    freed = await system.host.remove(model)
    await system.catalog.refresh()
    return Removed(model, freed_bytes=freed)


async def copy(system: System, source: str, destination: str) -> str:
    """One more name for a model, in models.yaml; the model. Raises ModelUnknown, BadRequest, ConfigError."""
    route = await system.route(source)
    model = route.model
    if route.served != model:
        raise BadRequest(
            f"{source} is an adapter of {model}: give it another name under `lora` in models.yaml",
            model=model,
        )
    if destination == model or destination in system.catalog.of(model).aliases:
        return model
    if destination in system.catalog.files:
        raise BadRequest(f"{destination} is a model of its own; choose another name for {model}", model=model)
    await _edit(system, model, lambda entry: _with(entry, destination))
    return model


async def chat_template(files: ModelFiles) -> str:
    """A model's own, in Jinja; "" where it has none."""
    return await asyncio.to_thread(read_template, files.path)


async def _edit(system: System, model: str, change: Callable[[dict[str, Any]], None]) -> None:
    """An entry of models.yaml is changed, and the server knows of it already."""
    await asyncio.to_thread(edit, system.config.models_file, model, change)
    await system.catalog.reload()


def _with(entry: dict[str, Any], name: str) -> None:
    names = entry.get("aliases")
    if names:
        names.append(name)
    else:
        entry["aliases"] = [name]


def _without(entry: dict[str, Any], name: str) -> None:
    left = [alias for alias in entry.get("aliases") or () if alias != name]
    if left:
        entry["aliases"] = left
    else:
        entry.pop("aliases", None)
