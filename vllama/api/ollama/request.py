"""The body of a request to Ollama's API: JSON, whatever its Content-Type says (`curl -d` says that it is a form)."""

import json
from typing import Any

from starlette.requests import ClientDisconnect, Request

from vllama.errors import BadRequest, BodyTooLarge


async def body_of(request: Request, bytes_max: int) -> dict[str, Any]:
    """Raises BadRequest, BodyTooLarge."""
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > bytes_max:
                raise BodyTooLarge(f"the request body is longer than the {bytes_max} bytes this server takes")
            parts.append(part)
    except ClientDisconnect:
        raise BadRequest("the body is not whole") from None
    if not size:
        raise BadRequest("missing request body")
    try:
        tree = json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"invalid JSON: {error}") from error
    if not isinstance(tree, dict):
        raise BadRequest("the request body must be a JSON object")
    return tree


def flag(tree: dict[str, Any], name: str, *, default: bool) -> bool:
    """Raises BadRequest."""
    value = tree.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false")
    return value
