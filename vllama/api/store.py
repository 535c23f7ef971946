"""Control endpoints that change which models there are: pull, delete, copy."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from vllama.actors import copy, delete, pull
from vllama.api.answers import error_answer, error_of
from vllama.api.lines import Lines, Say
from vllama.api.schemas import CopyBody, DeleteBody, PullBody

commands = APIRouter()


@commands.post("/pull")
async def pull_model(request: Request, body: PullBody) -> Lines:
    """A model comes from the hub. Each line is a step: `status`, and of a file `file`, `digest`, `total`, `completed`; the last
    one is `success` with the `revision`, or `error`. Hanging up ends the pull; the next one goes on from there."""

    async def steps(say: Say) -> None:
        async with pull(request.app.state.system, body.model, body.revision) as found:
            async for step in found:
                await say(step_of(step))

    return Lines(steps, request.app.state.closing, error_answer, error_of)


@commands.post("/delete")
async def delete_model(request: Request, body: DeleteBody) -> JSONResponse:
    """A model's files go from the cache; an alias goes from models.yaml."""
    return JSONResponse(asdict(await delete(request.app.state.system, body.model, stop=body.stop)))


@commands.post("/copy")
async def copy_model(request: Request, body: CopyBody) -> JSONResponse:
    """One more name for a model."""
    model = await copy(request.app.state.system, body.source, body.destination)
    return JSONResponse({"model": model, "alias": body.destination})


def step_of(step: Any) -> dict[str, Any]:
    """A step of a pull without what it does not say."""
    of_file = ("file", "digest", "total", "completed")
    tree = asdict(step)
    return {key: value for key, value in tree.items() if value or (tree["file"] and key in of_file)}
