"""GET /v1/models: what the cache holds, with the state of each in the words that llama-swap and llama.cpp's router use.

Nothing is scanned here: the catalog looks at the cache by itself. An adapter is a card of its own with its base as `parent`,
as vLLM lists it; aliases stand in their model's card, as llama.cpp's router lists them.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from vllama.actors import InstanceView, System

router = APIRouter()

# Interfaces made for those servers read `status.value`; our own phase stands beside it.
_VALUES: Mapping[str, str] = {
    "stopped": "unloaded",
    "queued": "loading",
    "starting": "loading",
    "waking": "loading",
    "awake": "loaded",
    "draining": "loaded",
    "falling_asleep": "sleeping",
    "asleep": "sleeping",
    "stopping": "unloaded",
    "failed": "unloaded",
}


async def _cards(system: System) -> dict[str, dict[str, Any]]:
    """Every card by its id."""
    views = {view.model: view for view in system.ps()}
    cards: dict[str, dict[str, Any]] = {}
    for files in await system.models():
        entry = system.catalog.of(files.id)
        card = {
            "id": files.id,
            "object": "model",
            "created": int(files.modified_at),
            "owned_by": "vllama",
            "root": files.id,
            "parent": None,
            "kind": files.kind,
            "max_model_len": entry.max_model_len or files.context_length,
            "aliases": list(entry.aliases),
            "status": _status(views.get(files.id)),
        }
        cards[files.id] = card
        for name, path in entry.lora.items():
            if name not in cards:
                cards[name] = {**card, "id": name, "root": path, "parent": files.id, "aliases": []}
    return cards


def _status(view: InstanceView | None) -> dict[str, object]:
    phase = str(view.phase) if view is not None else "stopped"
    status: dict[str, object] = {"value": _VALUES.get(phase, "unloaded"), "phase": phase}
    return status | {"failed": True} if phase == "failed" else status


@router.get("/v1/models")
async def list_models(request: Request) -> JSONResponse:
    """OpenAI's list."""
    cards = await _cards(request.app.state.system)
    return JSONResponse({"object": "list", "data": list(cards.values())})


@router.get("/v1/models/{name:path}")
async def one_model(request: Request, name: str) -> JSONResponse:
    """One of them, by any of its names; names have slashes. Raises ModelUnknown with the nearest ones."""
    system: System = request.app.state.system
    route = await system.route(name)
    cards = await _cards(system)
    if route.served not in cards:
        where = str(system.config.transformers_cache)
        raise system.catalog.names.unknown(name, where)
    return JSONResponse(cards[route.served])
