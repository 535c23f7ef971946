"""The HTTP application: routes, and the one mapping from errors to answers. It starts and stops nothing but itself."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from vllama.actors import System
from vllama.api import asking, events, instances, models, page, routes
from vllama.api.access import Access, Cors, Keys, options_of
from vllama.api.answers import error_answer, plain_answer, shaped
from vllama.api.fast.common import Common
from vllama.api.fast.running import running
from vllama.api.links import Links
from vllama.api.metrics import Metrics
from vllama.api.ollama.routes import routes as ollama_routes
from vllama.api.pace import Pace
from vllama.api.proxy import RETRY_AFTER_S, Edge, Proxy, StoredProxy
from vllama.api.realtime import Realtime
from vllama.api.stored import Responses
from vllama.api.tracing import tracing_of
from vllama.api.traffic import Traffic
from vllama.api.upstream import Upstreams
from vllama.errors import ShuttingDown, VllamaError, cited

log = logging.getLogger(__name__)

_CODES = {403: "forbidden", 404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}


def create_app(system: System, keys: Keys | None = None, *, control_off: bool = False) -> FastAPI:
    """The application over a running System. Nothing is redirected or documented by itself: an unknown path is 404."""
    links, traffic = Links(), Traffic()
    tracing = tracing_of(system.config, system.journal.tally.last_rise.get)
    edge = Edge(system, Upstreams(links), Responses(), Pace(), traffic, tracing)
    common = Common(edge, links, keys or Keys())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(common):
            yield
        if tracing is not None:
            await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="vllama",
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={
            VllamaError: _known,
            HTTPException: _http,
            RequestValidationError: _invalid,
            Exception: _unexpected,
        },
    )
    app.state.system = system
    system.bank.on_counted = traffic.add
    app.state.closing = asyncio.Event()
    app.state.common = common
    # The data path comes first and goes round FastAPI's own machinery, which costs more than the rest of it.
    app.router.routes.extend(_data_routes(system, edge))
    app.router.routes.append(Route("/debug/events", events.endpoint, methods=["GET"]))
    app.router.routes.append(Route("/debug/journal", events.journal, methods=["GET"]))
    app.router.routes.append(Route("/metrics", Metrics(system, traffic).endpoint, methods=["GET"]))
    app.router.routes.extend(page.routes())
    app.add_api_route("/health", _health, methods=["GET"])
    app.include_router(models.router)
    app.include_router(instances.router)
    app.include_router(asking.router)
    for route in app.router.routes:
        if isinstance(route, APIRoute) and "GET" in route.methods:
            route.methods.add("HEAD")  # as Starlette's own routes do; the server drops the body
    # The last one added stands first: a preflight carries no key, and a refusal must be readable to an allowed page.
    app.add_middleware(Options, routes=app.router.routes)
    app.add_middleware(Access, config=system.config, keys=keys or Keys(), control_off=control_off)
    if system.config.cors_origins:
        app.add_middleware(Cors, origins=system.config.cors_origins)
    return app


def _data_routes(system: System, edge: Edge) -> Iterator[BaseRoute]:
    for path in routes.JSON_PATHS:
        yield Route(path, Proxy(edge, path), methods=["POST"])
    for path in routes.FORM_PATHS:
        yield Route(path, Proxy(edge, path, form=True), methods=["POST"])
    stored, cancel = (StoredProxy(edge, system, suffix) for suffix in ("", "/cancel"))
    yield Route(routes.RESPONSE, stored, methods=["GET"])
    yield Route(routes.RESPONSE_CANCEL, cancel, methods=["POST"])
    yield WebSocketRoute(routes.REALTIME, Realtime(system, edge.traffic))
    yield from ollama_routes(edge)


class Options:
    """OPTIONS of any path of ours is answered here; no engine hears of it."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and scope["method"] == "OPTIONS"
            and (found := options_of(self._routes, scope))
        ):
            allow = ", ".join(sorted(found | {"OPTIONS"}))
            await Response(status_code=204, headers={"Allow": allow})(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _health(request: Request) -> JSONResponse:
    """Whether the server admits requests; says nothing of any engine."""
    if request.app.state.system.stopping:
        raise ShuttingDown("vllama is shutting down.", retry_after_s=RETRY_AFTER_S)
    return JSONResponse({"status": "ok"})


async def _known(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, VllamaError)
    return error_answer(error)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = plain_answer(error.status_code, str(error.detail), _CODES.get(error.status_code, "http_error"))
    answer.headers.update(error.headers or {})
    return shaped(request.url.path, answer)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """A body of one of our own endpoints that does not fit: each fault with its place, as one line."""
    assert isinstance(error, RequestValidationError)
    faults = [
        f"{cited('.'.join(str(part) for part in item['loc'][1:])) or 'body'}: {item['msg']}"
        for item in error.errors()
    ]
    return plain_answer(400, "; ".join(faults), "bad_request")


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, cited(request.url.path), exc_info=error)
    answer = plain_answer(500, "vllama met a bug; its log has the traceback.", "internal_error")
    return shaped(request.url.path, answer)
