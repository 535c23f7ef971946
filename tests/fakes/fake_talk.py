"""What a fake engine says beside plain text, in vLLM's shapes: reasoning, tool calls, structured output, each a few tokens.

`plan(body, args)` is a list of deltas for a chat, and why it ends. A model reasons where its engine was started with
`--reasoning-parser` and the request has not switched it off; it calls the first tool that the request offers, once, where the
engine was started with `--enable-auto-tool-choice`.
"""

import json

from fake_http import HttpError

THOUGHT = ["Let", " me", " think."]


def plan(body: dict, args: dict[str, str]) -> tuple[list[dict], str] | None:
    """None: this request gets plain text."""
    thoughts = [{"reasoning": text} for text in THOUGHT] if _thinks(body, args) else []
    if (call := _call(body, args)) is not None:
        return [*thoughts, *call], "tool_calls"
    texts = _structured(body.get("response_format") or {})
    if not texts and not thoughts:
        return None
    return [*thoughts, *({"content": text} for text in texts or ["Paris", "."])], "stop"


def message(deltas: list[dict]) -> dict:
    """The whole message that the deltas come to."""
    whole: dict = {"role": "assistant", "content": None}
    for delta in deltas:
        for key in ("content", "reasoning"):
            if key in delta:
                whole[key] = (whole.get(key) or "") + delta[key]
        for part in delta.get("tool_calls", ()):
            calls = whole.setdefault("tool_calls", [])
            if "id" in part:
                calls.append({"id": part["id"], "type": "function", "function": dict(part["function"])})
            else:
                calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    return whole


def _thinks(body: dict, args: dict[str, str]) -> bool:
    wanted = (body.get("chat_template_kwargs") or {}).get(
        "enable_thinking", body.get("reasoning_effort") != "none"
    )
    return "reasoning-parser" in args and wanted and body.get("include_reasoning", True)


def _call(body: dict, args: dict[str, str]) -> list[dict] | None:
    """A call in parts, as a parser finds it: the name first, then the arguments piece by piece."""
    tools = body.get("tools")
    if not tools or body.get("tool_choice") == "none" or body["messages"][-1]["role"] == "tool":
        return None
    if "enable-auto-tool-choice" not in args or "tool-call-parser" not in args:
        raise HttpError(
            400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
        )
    function = tools[0]["function"]
    arguments = json.dumps({name: _value(kind) for name, kind in _properties(function).items()})
    begin = {
        "index": 0,
        "id": "call_fake",
        "type": "function",
        "function": {"name": function["name"], "arguments": ""},
    }
    parts = [arguments[at : at + 5] for at in range(0, len(arguments), 5)]
    more = [{"index": 0, "function": {"arguments": part}} for part in parts]
    return [{"tool_calls": [part]} for part in (begin, *more)]


def _properties(function: dict) -> dict[str, dict]:
    return (function.get("parameters") or {}).get("properties") or {}


def _value(kind: dict) -> object:
    return {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}.get(
        str(kind.get("type")), "Paris"
    )


def _structured(wanted: dict) -> list[str]:
    """JSON of the wanted shape."""
    if wanted.get("type") == "json_schema":
        schema = wanted["json_schema"]["schema"]
        value = {name: _value(kind) for name, kind in schema.get("properties", {}).items()}
    elif wanted.get("type") == "json_object":
        value = {"answer": "Paris"}
    else:
        return []
    text = json.dumps(value)
    return [text[at : at + 4] for at in range(0, len(text), 4)]
