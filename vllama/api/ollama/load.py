"""Load and unload: a request that says nothing but how long its model stays awake."""

import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllama.api.body import header, wait_of
from vllama.api.keep import keep_of
from vllama.api.lines import Lines, Say
from vllama.api.ollama.clock import stamp
from vllama.api.ollama.errors import error_answer, error_line
from vllama.api.ollama.names import known
from vllama.api.proxy import Edge


async def load(edge: Edge, request: Request, tree: dict[str, Any], said: dict[str, Any]) -> Response:
    """Answered when the model is awake; with a `keep_alive` of 0 at once, and the model sleeps when nobody uses it. Raises
    BadRequest, ModelUnknown."""
    keep_s = keep_of({"keep_alive": tree.get("keep_alive")})
    named = str(tree.get("model"))
    model = (await known(edge.desk, tree.get("model"))).model
    wait_s = wait_of(request.scope["headers"])
    ident = header(request.scope["headers"], b"x-request-id") or uuid.uuid4().hex

    def line(reason: str) -> dict[str, Any]:
        return {"model": named, "created_at": stamp(), **said, "done": True, "done_reason": reason}

    if keep_s == 0:
        edge.desk.keep_alive(model, 0)
        return JSONResponse(line("unload"), headers={"X-Request-Id": ident})

    async def loaded(say: Say) -> None:
        ticket = await edge.desk.ensure_instance_running(model, wait_s, ident)
        if keep_s is not None:
            edge.desk.keep_alive(model, keep_s)
        ticket.release()
        await say(line("load"))

    return Lines(
        loaded,
        request.app.state.closing,
        lambda error: error_answer(error, named),
        lambda error: error_line(error.message),
        headers={"Content-Type": "application/json; charset=utf-8", "X-Request-Id": ident},
    )
