"""GET /v1/models: what the cache holds, with the state of each in the words that llama-swap and llama.cpp's router use.

Nothing is scanned here: the catalog looks at the cache by itself. An adapter is a card of its own with its base as `parent`,
as vLLM lists it; aliases stand in their model's card, as llama.cpp's router lists them.
"""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

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


class Cards:
    """The cards of one state of the catalog as JSON, all but their status: a thousand are listed in a few milliseconds."""

    def __init__(self, system: System) -> None:
        self.version = system.catalog.version
        self._heads: dict[str, tuple[str, str]] = {}  # name -> its model, its card up to the status
        for files in system.catalog.models:
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
            }
            if files.problem:
                card["problem"] = files.problem
            self._heads[files.id] = (files.id, _head(card))
            for name, path in entry.lora.items():
                adapter = {**card, "id": name, "root": path, "parent": files.id, "aliases": []}
                self._heads.setdefault(name, (files.id, _head(adapter)))

    def all(self, system: System) -> str:
        """OpenAI's list."""
        tails = {view.model: _tail(view) for view in system.ps()}
        rest = _tail(None)
        cards = (head + tails.get(model, rest) for model, head in self._heads.values())
        return '{"object":"list","data":[' + ",".join(cards) + "]}"

    def one(self, system: System, name: str) -> str | None:
        """None for a name that is neither a model's id nor an adapter's."""
        if (found := self._heads.get(name)) is None:
            return None
        model, head = found
        return head + _tail(next((view for view in system.ps() if view.model == model), None))


def _head(card: dict[str, Any]) -> str:
    return json.dumps(card, separators=(",", ":"))[:-1] + ',"status":'


def _tail(view: InstanceView | None) -> str:
    phase = str(view.phase) if view is not None else "stopped"
    status: dict[str, object] = {"value": _VALUES.get(phase, "unloaded"), "phase": phase}
    if phase == "failed":
        status["failed"] = True
    return json.dumps(status, separators=(",", ":")) + "}"


async def _cards(request: Request) -> Cards:
    """Those of the catalog as it is now."""
    state = request.app.state
    await state.system.models()
    cards: Cards | None = getattr(state, "cards", None)
    if cards is None or cards.version != state.system.catalog.version:
        cards = state.cards = Cards(state.system)
    return cards


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")


@router.get("/v1/models")
async def list_models(request: Request) -> Response:
    """OpenAI's list."""
    return _json((await _cards(request)).all(request.app.state.system))


@router.get("/v1/models/{name:path}")
async def one_model(request: Request, name: str) -> Response:
    """One of them, by any of its names; names have slashes. Raises ModelUnknown with the nearest ones."""
    system: System = request.app.state.system
    route = await system.route(name)
    card = (await _cards(request)).one(system, route.served)
    if card is None:  # its files have gone while its engine runs
        raise system.catalog.names.unknown(name, str(system.config.transformers_cache))
    return _json(card)
