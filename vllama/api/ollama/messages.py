"""Ollama's messages, tools and images in OpenAI's words."""

import json
from collections import deque
from typing import Any

from vllama.errors import BadRequest, cited

ROLES = ("system", "user", "assistant", "tool", "developer")
# The first characters of an image in base64 say what it is.
_KINDS = {"/9j/": "jpeg", "iVBOR": "png", "R0lG": "gif", "UklG": "webp", "Qk": "bmp"}


def messages(given: Any) -> list[dict[str, Any]]:
    """Raises BadRequest."""
    if not isinstance(given, list) or not all(isinstance(message, dict) for message in given):
        raise BadRequest("messages must be an array of objects")
    calls: deque[tuple[str, str]] = (
        deque()
    )  # of the latest assistant's calls, those without a result: name, id
    return [_message(message, index, calls) for index, message in enumerate(given)]


def _message(given: dict[str, Any], index: int, calls: deque[tuple[str, str]]) -> dict[str, Any]:
    role, content = given.get("role"), given.get("content")
    if role not in ROLES:
        raise BadRequest(f"invalid role {cited(repr(role))}: must be one of {', '.join(ROLES)}")
    if content is not None and not isinstance(content, str):
        raise BadRequest(f"message {index}: content must be a string")
    message: dict[str, Any] = {"role": role, "content": _content(content or "", given.get("images"))}
    if role == "tool":
        message["tool_call_id"] = _result_of(given, calls)
    if role == "assistant":
        if given.get("thinking"):
            message["reasoning"] = given["thinking"]
        if given.get("tool_calls"):
            message["tool_calls"] = _calls(given["tool_calls"], index, calls)
    return message


def _content(text: str, images: Any) -> str | list[dict[str, Any]]:
    if not images:
        return text
    if not isinstance(images, list):
        raise BadRequest("images must be an array of base64 strings")
    parts = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images]
    return [*parts, {"type": "text", "text": text}] if text else parts


def _data_url(image: Any) -> str:
    if not isinstance(image, str) or not image:
        raise BadRequest("illegal base64 data: each image must be a base64 string")
    if image.startswith("data:"):
        return image
    kind = next((kind for start, kind in _KINDS.items() if image.startswith(start)), "jpeg")
    return f"data:image/{kind};base64,{image}"


def _calls(given: Any, index: int, calls: deque[tuple[str, str]]) -> list[dict[str, Any]]:
    calls.clear()
    made = []
    if not isinstance(given, list):
        raise BadRequest("tool_calls must be an array")
    for number, call in enumerate(given):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRequest("each of tool_calls must have a function with a name")
        arguments = function.get("arguments") or {}
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        ident = str(call.get("id") or f"call_{index}_{number}")
        calls.append((function["name"], ident))
        made.append(
            {"id": ident, "type": "function", "function": {"name": function["name"], "arguments": text}}
        )
    return made


def _result_of(given: dict[str, Any], calls: deque[tuple[str, str]]) -> str:
    """Which call a result belongs to: as it says, else the first one of its tool that has none, else the first."""
    name = given.get("tool_name") or given.get("name")
    ident = given.get("tool_call_id")
    found = next(
        (call for call in calls if ident == call[1] or (not ident and name in (None, call[0]))), None
    )
    found = found or (calls[0] if calls and not ident else None)
    if found is None:
        return str(ident or name or "call_0")
    calls.remove(found)
    return found[1]


def tools(given: Any) -> dict[str, Any]:
    """Raises BadRequest."""
    if not given:
        return {}
    if not isinstance(given, list) or not all(
        isinstance(tool, dict) and isinstance(tool.get("function"), dict) for tool in given
    ):
        raise BadRequest("tools must be an array of objects, each with a function")
    made = [{"type": "function", "function": _without_nulls(tool["function"])} for tool in given]
    return {"tools": made, "tool_choice": "auto"}


def _without_nulls(value: Any) -> Any:
    """Clients send what they have not as null, where a schema must have nothing."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
