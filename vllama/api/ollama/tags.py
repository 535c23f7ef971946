"""GET /api/tags, /api/ps, /api/version and /: which models there are, which are awake, and until when."""

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from vllama import __version__
from vllama.actors import InstanceView, System
from vllama.api.ollama.cards import card, modified
from vllama.api.ollama.clock import stamp
from vllama.api.page import is_led_here, lead

# Clients ask for the version to know which routes and fields they may use: this is the one whose API this is.
API_VERSION = "0.12.6"
AWAKE = ("awake", "draining")
_VARY = {"Vary": "Accept"}
FOREVER_S = 2**63 / 1e9  # as Ollama has it: what is longer than a century is shown as "Forever"


async def root(request: Request) -> Response:
    """What Ollama says; who looks with a browser is led to the page."""
    return lead() if is_led_here(request.scope) else PlainTextResponse("Ollama is running", headers=_VARY)


async def version(_: Request) -> Response:
    return JSONResponse({"version": API_VERSION, "vllama": __version__})


async def tags(request: Request) -> Response:
    """Every name: ids, aliases, adapters; the latest first, as Ollama lists them."""
    system: System = request.app.state.system
    await system.models()
    listed = [
        card(system, name, model, served) | {"modified_at": modified(system, model)}
        for name, model, served in _names(system)
    ]
    return JSONResponse({"models": sorted(listed, key=lambda item: item["modified_at"], reverse=True)})


def _names(system: System) -> list[tuple[str, str, str]]:
    """Each name with its model and what its engine knows it as."""
    found = []
    for files in system.catalog.models:
        entry = system.catalog.of(files.id)
        names = [(files.id, files.id), *((alias, files.id) for alias in entry.aliases)]
        names += [(adapter, adapter) for adapter in entry.lora]
        found += [(name, files.id, served) for name, served in names]
    return found


async def ps(request: Request) -> Response:
    """What is awake, the longest expiry first. What sleeps has no expiry: it is stopped, or woken."""
    system: System = request.app.state.system
    kinds = {device["id"]: device["kind"] for device in system.devices()}
    now = time.time()
    running = [
        (_until(view, now), view)
        for view in system.ps()
        if view.phase in AWAKE and view.model in system.catalog.files
    ]
    running.sort(key=lambda item: -item[0])
    return JSONResponse({"models": [_running(system, view, until, kinds) for until, view in running]})


def _running(system: System, view: InstanceView, until: float, kinds: dict[str, str]) -> dict[str, Any]:
    each = view.footprint_bytes or view.memory_bytes  # as measured; booked, until then
    entry, files = system.catalog.of(view.model), system.catalog.files[view.model]
    return card(system, view.model, view.model, view.model) | {
        "size": each * len(view.devices),
        "size_vram": each * sum(kinds.get(device) == "cuda" for device in view.devices),
        "expires_at": stamp(until),
        "context_length": entry.max_model_len or files.context_length,
    }


def _until(view: InstanceView, now: float) -> float:
    """When it goes to sleep if nobody comes; one in use has not begun to be idle."""
    if view.idle_after_s is None:
        return now + FOREVER_S
    since = now if view.in_flight or view.last_used is None else view.last_used
    return since + view.idle_after_s
