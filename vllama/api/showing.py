"""GET /control/models and /control/show: what there is, and what one of them would take."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from vllama.actors import listed, shown
from vllama.errors import BadRequest

reads = APIRouter()


@reads.get("/models")
async def models(request: Request) -> JSONResponse:
    """Every model of the cache, with its state."""
    return JSONResponse({"models": await listed(request.app.state.system)})


@reads.get("/show")
async def show(request: Request, model: str = "") -> JSONResponse:
    """One model, by any of its names."""
    if not model:
        raise BadRequest("show which model? Say ?model=NAME")
    return JSONResponse(await shown(request.app.state.system, model))
