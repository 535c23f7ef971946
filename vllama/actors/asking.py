"""What somebody who wants to understand asks of a running System: why things went as they did."""

import asyncio
import time
from typing import Any

from vllama.actors.explain import explained
from vllama.actors.system import System
from vllama.errors import RequestUnknown, cited


async def explain(
    system: System, *, model: str | None = None, request: str | None = None, limit: int = 20
) -> list[dict[str, Any]]:
    """The latest waits, evictions and refusals: all, a model's, or those of a request. Raises ModelUnknown, RequestUnknown."""
    if model is not None:
        model = (await system.route(model)).model
    names = await device_names(system)
    records = system.journal.still()
    found = await asyncio.to_thread(
        lambda: explained(records, time.time(), model=model, request=request, names=names, limit=limit)
    )
    if request is not None and not found:
        kept = system.config.journal_requests_max
        raise RequestUnknown(
            f"the journal holds no request {cited(request)}: it keeps the latest {kept} records of requests"
        )
    return found


async def device_names(system: System) -> dict[str, str]:
    """Devices as people call them: cuda:0 for a UUID."""
    devices = (await system.host.describe()).devices
    return {device.id: f"cuda:{device.index}" if device.kind == "cuda" else device.id for device in devices}
