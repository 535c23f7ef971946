"""Errors as Ollama words them: `{"error": "text"}`, and the few sentences that its clients know by heart."""

import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from vllama.api.answers import RETRY_AFTER_S
from vllama.errors import VllamaError, cited

_DOES = {
    "/api/chat": "chat",
    "/api/generate": "generate",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
}
BUSY = "server busy, please try again.  maximum pending requests exceeded"


def error_line(message: str) -> dict[str, str]:
    """The last line of a stream that broke."""
    return {"error": message}


def error_answer(error: VllamaError, named: str = "") -> JSONResponse:
    """The whole answer; `named` is the model as the client named it."""
    status, message = worded(error.status_hint, error.code, error.message, named or error.model or "")
    answer = JSONResponse(error_line(message), status)
    after_s = error.retry_after_s
    if after_s is None and status in (429, 503):
        after_s = RETRY_AFTER_S
    if after_s is not None:
        answer.headers["Retry-After"] = str(max(1, math.ceil(after_s)))
    return answer


def worded(status: int, code: object, message: str, named: str, route: str = "") -> tuple[int, str]:
    """Status and text for what has a class in errors.py."""
    match code:
        case "model_not_found" if named and "ambiguous" not in message and "has no revision" not in message:
            return 404, f'model "{cited(named)}" not found, try pulling it first'
        case "queue_full":
            return 503, BUSY
        case "route_unserved":
            return 400, f'"{named}" does not support {_DOES.get(route, "this")}: {message}'
    return status, message


def text_of(tree: Any) -> tuple[str, object]:
    """Message and code of an error as our own answers, vLLM's and FastAPI's have it."""
    if isinstance(tree, Mapping):
        error = tree.get("error", tree)
        if isinstance(error, Mapping):
            return str(error.get("message") or error.get("detail") or error), error.get("code")
        return str(error), None
    return str(tree), None
