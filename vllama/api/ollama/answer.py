"""A chat's and a generation's answer: lines as the parts come, or one object of all of them."""

from collections.abc import Callable
from typing import Any

from vllama.api.ollama.clock import Clock, stamp
from vllama.api.ollama.fold import Fold, Part

Voice = Callable[[str, str, list[dict[str, Any]]], dict[str, Any]]


def as_message(text: str, thinking: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    """How /api/chat says it."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = calls
    return {"message": message}


def as_response(text: str, thinking: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    """How /api/generate says it."""
    said: dict[str, Any] = {"response": text}
    if thinking:
        said["thinking"] = thinking
    if calls:
        said["tool_calls"] = calls
    return said


class Answer:
    """`thoughts`: whether reasoning is passed on, or kept from the reader who switched it off."""

    def __init__(self, named: str, voice: Voice, clock: Clock, *, stream: bool, thoughts: bool) -> None:
        self._named, self._voice, self._clock = named, voice, clock
        self._stream, self._thoughts = stream, thoughts
        self._fold = Fold()
        self._whole = Part()

    def failure(self) -> tuple[int, str] | None:
        """What the engine said, or what cannot be put into Ollama's words."""
        return self._fold.failure

    def take(self, chunk: bytes) -> list[dict[str, Any]]:
        """Lines, where they are wanted as they come."""
        lines = []
        for part in self._fold.feed(chunk):
            self._clock.token()
            thinking = part.thinking if self._thoughts else ""
            if not (part.text or thinking or part.logprobs):
                continue
            if self._stream:
                lines.append(self._line(part.text, thinking, [], part.logprobs))
                continue
            self._whole.text += part.text
            self._whole.thinking += thinking
            self._whole.logprobs += part.logprobs
        return lines

    def end(self) -> list[dict[str, Any]]:
        """Tool calls are said in one piece, for their arguments are an object; then the counts and times."""
        fold, whole = self._fold, self._whole
        calls = fold.calls()
        counts = self._clock.durations(fold.prompt_tokens, fold.tokens)
        ended = {"done": True, "done_reason": fold.reason, **counts}
        if not self._stream:
            return [self._line(whole.text, whole.thinking, calls, whole.logprobs) | ended]
        called = [self._line("", "", calls, [])] if calls else []
        return [*called, self._line("", "", [], []) | ended]

    def _line(
        self, text: str, thinking: str, calls: list[dict[str, Any]], logprobs: list[dict[str, Any]]
    ) -> dict[str, Any]:
        line = {
            "model": self._named,
            "created_at": stamp(),
            **self._voice(text, thinking, calls),
            "done": False,
        }
        return line | ({"logprobs": logprobs} if logprobs else {})
