"""Control endpoints beside start, stop and sleep: restart, reload, logs."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, StreamingResponse

from vllama.actors import LogReader, reload, restart
from vllama.api.schemas import EmptyBody, ModelBody
from vllama.errors import BadRequest

FOLLOW_S = 0.25
LINES_MAX = 100_000

reads = APIRouter()
commands = APIRouter()


@commands.post("/restart")
async def restart_model(request: Request, body: ModelBody) -> JSONResponse:
    """Stop, then start; answered when it is awake."""
    return JSONResponse(asdict(await restart(request.app.state.system, body.model)))


@commands.post("/reload")
async def reload_models(request: Request, _: EmptyBody) -> JSONResponse:
    """Read models.yaml now."""
    return JSONResponse(await reload(request.app.state.system))


@reads.get("/logs")
async def logs(request: Request, model: str = "", lines: int = 100, follow: int = 0) -> StreamingResponse:
    """The last lines of the engine's log as they are; with `follow=1` also what comes."""
    if not model:
        raise BadRequest("logs of which model? Say ?model=NAME")
    if not 0 <= lines <= LINES_MAX:
        raise BadRequest(f"lines must be from 0 to {LINES_MAX}, not {lines}")
    reader = await LogReader.of(request.app.state.system, model)
    text = await reader.last(lines)
    body = _followed(reader, text, request.app.state.closing) if follow else _once(text)
    headers = {"X-Vllama-Log": str(reader.path), "Cache-Control": "no-store"}
    return StreamingResponse(body, media_type="text/plain", headers=headers)


async def _once(text: bytes) -> AsyncIterator[bytes]:
    yield text


async def _followed(reader: LogReader, text: bytes, closing: asyncio.Event) -> AsyncIterator[bytes]:
    """Until the reader hangs up or the server ends."""
    while True:
        if text:
            yield text
        if closing.is_set():
            return
        text = await reader.more()
        if not text:
            try:
                async with asyncio.timeout(FOLLOW_S):
                    await closing.wait()
            except TimeoutError:
                continue
