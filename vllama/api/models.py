"""GET /v1/models: what the cache holds, with the state of each in the words that llama-swap and llama.cpp's router use."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from vllama.actors import System
from vllama.errors import ModelUnknown

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
    "failed": "failed",
}


async def _cards(system: System) -> list[dict[str, Any]]:
    phases = {view.model: str(view.phase) for view in system.ps()}
    return [
        {
            "id": files.id,
            "object": "model",
            "created": int(files.modified_at),
            "owned_by": "vllama",
            "kind": files.kind,
            "max_model_len": files.context_length,
            "status": {
                "value": _VALUES.get(phases.get(files.id, "stopped"), "unloaded"),
                "phase": phases.get(files.id, "stopped"),
            },
        }
        for files in await system.models()
    ]


@router.get("/v1/models")
async def list_models(request: Request) -> JSONResponse:
    """OpenAI's list."""
    return JSONResponse({"object": "list", "data": await _cards(request.app.state.system)})


@router.get("/v1/models/{model:path}")
async def one_model(request: Request, model: str) -> JSONResponse:
    """One of them; names have slashes."""
    for card in await _cards(request.app.state.system):
        if card["id"] == model:
            return JSONResponse(card)
    raise ModelUnknown(
        f"{model}: no complete model of that name is in the cache; GET /v1/models lists those that are.",
        model=model,
    )
