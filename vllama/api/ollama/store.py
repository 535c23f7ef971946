"""/api/pull, /api/delete, /api/copy: the control endpoints of these names in Ollama's words; and what vllama has no use for."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllama.actors import System, copy, delete, pull
from vllama.api.lines import Lines, Say
from vllama.api.ollama.errors import error_answer, error_line
from vllama.api.ollama.names import at_hub, known, untagged
from vllama.api.ollama.request import body_of, flag
from vllama.errors import BadRequest, VllamaError

BODY_BYTES_MAX = 2**20


async def pull_model(request: Request) -> Response:
    """A tag that is not `latest` is the revision. Progress as lines, or (`stream` false) one answer at the end."""
    tree = await body_of(request, BODY_BYTES_MAX)
    model, revision = at_hub(tree.get("model") or tree.get("name"))
    stream = flag(tree, "stream", default=True)

    async def steps(say: Say) -> None:
        async with pull(request.app.state.system, model, revision) as found:
            async for step in found:
                line: dict[str, Any] = {"status": step.status}
                if step.file:
                    line |= {"digest": step.digest, "total": step.total, "completed": step.completed}
                if stream or step.status == "success":
                    await say(line)

    headers = None if stream else {"Content-Type": "application/json; charset=utf-8"}
    return Lines(steps, request.app.state.closing, error_answer, _broken, headers)


def _broken(error: VllamaError) -> dict[str, str]:
    return error_line(error.message)


async def delete_model(request: Request) -> Response:
    """A model that has an engine is refused; an alias goes alone."""
    system: System = request.app.state.system
    tree = await body_of(request, BODY_BYTES_MAX)
    name = tree.get("model") or tree.get("name")
    await known(system, name)
    plain = str(name) if system.find(str(name)) is not None else untagged(str(name))
    await delete(system, plain)
    return Response(status_code=200)


async def copy_model(request: Request) -> Response:
    """An alias in models.yaml: no byte is copied."""
    system: System = request.app.state.system
    tree = await body_of(request, BODY_BYTES_MAX)
    destination = tree.get("destination")
    if not isinstance(destination, str) or not destination:
        raise BadRequest("destination is required")
    source = await known(system, tree.get("source"))
    await copy(system, source.served, untagged(destination))
    return Response(status_code=200)


async def unserved(request: Request) -> Response:
    """Ollama's own formats and registry."""
    what = request.url.path.removeprefix("/api/").partition("/")[0]
    instead = {
        "create": "a model is a folder of Hugging Face's cache: bring one with /api/pull, set it up in models.yaml, name it "
        "anew with /api/copy",
        "push": "there is no registry to push to: use `hf upload`",
        "blobs": "models are pulled from Hugging Face's hub: use /api/pull",
    }
    return JSONResponse(error_line(f"vllama does not serve /api/{what}: {instead[what]}"), 501)
