"""GET /metrics, as text or as OpenMetrics, whichever the reader accepts.

It is an operator's route as /debug is (access.py): whoever reads it sees how everybody uses the models.
"""

import asyncio
import gzip

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from vllama.actors import System
from vllama.api.metrics import text
from vllama.api.metrics.figures import Scene, families
from vllama.api.metrics.scrape import Scraper
from vllama.api.traffic import Traffic
from vllama.errors import BadRequest, cited

ZIP_LEVEL = 1  # the text is long and repeats itself: the quickest is enough


class Metrics:
    """The endpoint. `?engines=0` leaves the engines' own figures out, and asks none."""

    def __init__(self, system: System, traffic: Traffic) -> None:
        self._system = system
        self._traffic = traffic
        self._scraper = Scraper(system, system.config.metrics_timeout_s)

    async def endpoint(self, request: Request) -> Response:
        wanted = request.query_params.get("engines", "1")
        if wanted not in ("0", "1"):
            raise BadRequest(f"engines must be 0 or 1, not {cited(wanted)!r}.")
        pages = await self._scraper.scrape() if wanted == "1" else ()
        scene = Scene(self._system, self._traffic, pages)
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        body, kind = await asyncio.to_thread(_page, scene, request.headers.get("accept", ""))
        headers = {"Content-Type": kind, "Cache-Control": "no-store", "Vary": "Accept, Accept-Encoding"}
        if zipped:
            body = await asyncio.to_thread(gzip.compress, body, ZIP_LEVEL)
            headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers)


def _page(scene: Scene, accept: str) -> tuple[bytes, str]:
    """The whole of it, and its content type."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)  # of the server itself
    _, kind = choose_encoder(accept)
    found = [*families(scene), *text.plain(generate_latest(registry).decode())]
    for page in scene.pages:
        found += text.engines(page.text or "", page.model)
    open_metrics = kind.startswith("application/openmetrics-text")
    if open_metrics:
        found = [text.as_open(family) for family in found]
    return text.written(text.merged(found).values(), open_metrics=open_metrics).encode(), kind
