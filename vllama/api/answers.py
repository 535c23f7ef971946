"""Errors in OpenAI's shape: the one place where an error becomes a status, a body and headers."""

import json
import math

from starlette.responses import JSONResponse, Response

from vllama.errors import VllamaError

RETRY_AFTER_S = 5.0  # where nothing better is known


def error_body(message: str, kind: str, code: str) -> dict[str, object]:
    """OpenAI's error object; its clients read `message` and `code`."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_of(error: VllamaError) -> dict[str, object]:
    """The body for one of our own errors; its message names the model."""
    return error_body(error.message, error.type, error.code)


def error_event(error: VllamaError) -> bytes:
    """The same, as one server-sent event: the last thing in a stream that broke."""
    return b"data: " + json.dumps(error_of(error)).encode() + b"\n\n"


def error_answer(error: VllamaError, headers: dict[str, str] | None = None) -> JSONResponse:
    """The whole answer. Retry-After is in whole seconds and never 0: a client must not come back in a tight loop."""
    headers = dict(headers or {})
    after_s = error.retry_after_s
    if after_s is None and error.status_hint in (429, 503):
        after_s = RETRY_AFTER_S
    if after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(after_s)))
    return JSONResponse(error_of(error), error.status_hint, headers)


def shaped(path: str, answer: Response) -> Response:
    """An error in the shape that the readers of this path expect: on Ollama's routes the message alone."""
    if not path.startswith("/api/"):
        return answer
    error = json.loads(bytes(answer.body)).get("error")
    if isinstance(error, dict):
        headers = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        return JSONResponse({"error": error.get("message", "")}, answer.status_code, headers)
    return answer


def plain_answer(status: int, message: str, code: str) -> JSONResponse:
    """An answer for what has no class in errors.py because only HTTP knows it: no such path, no such method."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse(error_body(message, kind, code), status)
