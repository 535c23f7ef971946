"""The control endpoints, which the CLI talks to. A web page must not reach them: JSON only, and
nothing from a foreign Origin or for a foreign Host (access.py)."""

from dataclasses import asdict

from fastapi import APIRouter, Depends, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from vllama.actors import CommandResult, System
from vllama.api import operating, showing, store
from vllama.api.schemas import ModelBody, SleepBody


def json_only(request: Request) -> None:
    """A form of a foreign page can be posted without asking first; JSON cannot."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Control requests must have Content-Type: application/json.")


router = APIRouter(prefix="/control")
_json = [Depends(json_only)]


def _system(request: Request) -> System:
    system: System = request.app.state.system
    return system


def _answer(result: CommandResult) -> JSONResponse:
    return JSONResponse(asdict(result))


@router.get("/info")
async def info(request: Request) -> JSONResponse:
    """Settings, devices, versions, how engines are started and why."""
    return JSONResponse(await _system(request).info())


@router.get("/ps")
async def ps(request: Request) -> JSONResponse:
    """Every instance that has been asked for, the devices, the host's RAM: from memory, so that nothing can delay it."""
    system = _system(request)
    views = [asdict(view) for view in system.ps()]
    return JSONResponse({"instances": views, "devices": system.devices(), "ram": system.ram()})


@router.post("/start", dependencies=_json)
async def start(request: Request, body: ModelBody) -> JSONResponse:
    """Start or wake; answered when it is awake."""
    return _answer(await _system(request).command("start", body.model))


@router.post("/stop", dependencies=_json)
async def stop(request: Request, body: ModelBody) -> JSONResponse:
    """Stop, from any phase; clears `failed`."""
    return _answer(await _system(request).command("stop", body.model))


@router.post("/sleep", dependencies=_json)
async def sleep(request: Request, body: SleepBody) -> JSONResponse:
    """Sleep, at least as deep as `level`."""
    return _answer(await _system(request).command("sleep", body.model, level=body.level, force=body.force))


router.include_router(operating.reads)
router.include_router(showing.reads)
router.include_router(operating.commands, dependencies=_json)
router.include_router(store.commands, dependencies=_json)
