"""vLLM's event stream taken in: text, reasoning, tool calls, counts; whole events out of bytes that come as they come."""

import json
from dataclasses import dataclass, field
from typing import Any

from vllama.api.ollama.errors import text_of


@dataclass(slots=True)
class Part:
    """What one event has added."""

    text: str = ""
    thinking: str = ""
    logprobs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class _Call:
    ident: str = ""
    name: str = ""
    arguments: str = ""


class Fold:
    """One answer, of the chat route or of completions. `failure`: why it broke off, and with which status."""

    def __init__(self) -> None:
        self.finish = ""
        self.prompt_tokens: int | None = None
        self.tokens: int | None = None
        self.failure: tuple[int, str] | None = None
        self._calls: dict[int, _Call] = {}
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Part]:
        """The parts of the events that are whole by now."""
        *events, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        return [part for event in events for part in self._event(event)]

    def _event(self, event: bytes) -> list[Part]:
        data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
        if not data or data == b"[DONE]":
            return []
        try:
            tree = json.loads(data)
        except ValueError:
            return []  # an event that broke off; the error follows it
        if "error" in tree:
            message, code = text_of(tree)
            status = code if isinstance(code, int) and 400 <= code < 600 else 500
            self.failure = self.failure or (status, message)
            return []
        if usage := tree.get("usage"):
            self.prompt_tokens, self.tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        return [part for choice in tree.get("choices") or () if (part := self._choice(choice)) is not None]

    def _choice(self, choice: dict[str, Any]) -> Part | None:
        self.finish = choice.get("finish_reason") or self.finish
        delta = choice.get("delta") or {"content": choice.get("text")}
        for call in delta.get("tool_calls") or ():
            self._call(call)
        part = Part(
            delta.get("content") or "",
            delta.get("reasoning") or delta.get("reasoning_content") or "",
            _logprobs(choice.get("logprobs")),
        )
        return part if part.text or part.thinking or part.logprobs else None

    def _call(self, delta: dict[str, Any]) -> None:
        call = self._calls.setdefault(delta.get("index") or 0, _Call())
        function = delta.get("function") or {}
        call.ident = call.ident or delta.get("id") or ""
        call.name += function.get("name") or ""
        call.arguments += function.get("arguments") or ""

    def calls(self) -> list[dict[str, Any]]:
        """The tool calls, whole. One whose arguments are no JSON object is a failure."""
        made = []
        for index, call in sorted(self._calls.items()):
            try:
                arguments = json.loads(call.arguments or "{}")
            except ValueError:
                arguments = None
            if not isinstance(arguments, dict):
                self.failure = (
                    500,
                    f"the model called {call.name} with arguments that are no JSON object: {call.arguments}",
                )
                return []
            function = {"index": index, "name": call.name, "arguments": arguments}
            made.append({"id": call.ident, "function": function})
        return made

    @property
    def reason(self) -> str:
        """Why it ended, in Ollama's words."""
        return "length" if self.finish == "length" else "stop"


def _logprobs(given: Any) -> list[dict[str, Any]]:
    """Ollama's, from the chat route's or the completions route's."""
    if not given:
        return []
    if "content" in given:
        return [
            {"token": one["token"], "logprob": one["logprob"], "top_logprobs": _top(one.get("top_logprobs"))}
            for one in given["content"] or ()
        ]
    tops = given.get("top_logprobs") or [None] * len(given["tokens"])
    return [
        {
            "token": token,
            "logprob": value,
            "top_logprobs": [{"token": t, "logprob": v} for t, v in (top or {}).items()],
        }
        for token, value, top in zip(given["tokens"], given["token_logprobs"], tops, strict=False)
    ]


def _top(given: Any) -> list[dict[str, Any]]:
    return [{"token": one["token"], "logprob": one["logprob"]} for one in given or ()]
