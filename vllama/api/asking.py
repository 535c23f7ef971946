"""GET /debug/explain: why things went as they did, by the journal. GET /debug/plan: what would happen now."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse

from vllama.actors import explain, plan
from vllama.errors import BadRequest

LIMIT_MAX = 1000

router = APIRouter(prefix="/debug")


@router.get("/explain")
async def explained(
    http: Request,
    model: str | None = None,
    request: Annotated[str | None, Query(description="the X-Request-Id of an answer")] = None,
    limit: int = 20,
) -> JSONResponse:
    """`?model=` or `?request=`, neither for all; the latest `limit` explanations, oldest first."""
    if model is not None and request is not None:
        raise BadRequest("explain a model or a request, not both")
    if not 1 <= limit <= LIMIT_MAX:
        raise BadRequest(f"limit must be from 1 to {LIMIT_MAX}, not {limit}")
    found = await explain(http.app.state.system, model=model, request=request, limit=limit)
    return JSONResponse({"explanations": found}, headers={"Cache-Control": "no-store"})


@router.get("/plan")
async def planned(http: Request, model: str = "") -> JSONResponse:
    """`?model=`: what would happen if it were asked for now. Nothing does."""
    if not model:
        raise BadRequest("a plan for which model? Say ?model=NAME")
    return JSONResponse(await plan(http.app.state.system, model), headers={"Cache-Control": "no-store"})
