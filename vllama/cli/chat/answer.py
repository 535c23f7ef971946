"""One answer as it comes: its pieces, and what it took."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from vllama.cli.client import AnswerError, Client

PATH = "/v1/chat/completions"


class Piece(NamedTuple):
    """A part of the answer's text, or of what the model thought before it."""

    kind: Literal["thought", "text"]
    text: str


@dataclass
class Answer:
    """Iterate over it once; the figures are whole when that is over."""

    client: Client
    body: Mapping[str, Any]
    text: str = ""
    state: str = ""
    waited_s: float = 0.0
    prompt_tokens: int = 0
    tokens: int = 0
    finish: str = ""
    begun: float = field(default_factory=time.monotonic)
    first: float = 0.0
    ended: float = 0.0

    def __iter__(self) -> Iterator[Piece]:
        """Raises ServerDownError, AnswerError: also for an answer that broke under way."""
        with self.client.answering(PATH, self.body) as answer:
            self.state = answer.headers.get("X-Vllama-State", "")
            self.waited_s = _number(answer.headers.get("X-Vllama-Wait-Ms", "0")) / 1000
            try:
                while line := answer.readline():
                    if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
                        yield from self._taken(_tree(data))
            finally:
                self.ended = time.monotonic()

    def _taken(self, chunk: dict[str, Any]) -> Iterator[Piece]:
        if error := chunk.get("error"):
            known = error if isinstance(error, dict) else {"message": str(error)}
            raise AnswerError(str(known.get("message")), str(known.get("code", "error")))
        if usage := chunk.get("usage"):
            self.prompt_tokens = int(usage.get("prompt_tokens") or 0)
            self.tokens = int(usage.get("completion_tokens") or 0)
        for choice in chunk.get("choices") or ():
            self.finish = choice.get("finish_reason") or self.finish
            delta = choice.get("delta") or {}
            if thought := delta.get("reasoning") or delta.get("reasoning_content"):
                self._began()
                yield Piece("thought", str(thought))
            if text := delta.get("content"):
                self._began()
                self.text += str(text)
                yield Piece("text", str(text))

    def _began(self) -> None:
        self.first = self.first or time.monotonic()

    def figures(self) -> dict[str, Any]:
        """What it took. The rate is over the tokens after the first one; None where there is none."""
        ended = self.ended or time.monotonic()
        spread = ended - self.first if self.first else 0.0
        rate = (self.tokens - 1) / spread if self.tokens > 1 and spread > 0 else None
        return {
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
            "total_s": round(ended - self.begun, 3),
            "waited_s": round(self.waited_s, 3),
            "first_token_s": round(self.first - self.begun - self.waited_s, 3) if self.first else None,
            "tokens_per_s": round(rate, 2) if rate is not None else None,
        }


def told(figures: Mapping[str, Any]) -> str:
    """The figures in one line."""
    words = [f"{figures['tokens']} token{'' if figures['tokens'] == 1 else 's'}"]
    if figures["tokens_per_s"] is not None:
        words.append(f"{figures['tokens_per_s']:.1f} tokens/s")
    if figures["first_token_s"] is not None:
        words.append(f"first after {max(figures['first_token_s'], 0):.2f} s")
    if figures["waited_s"] >= 0.05:
        words.append(f"waited {figures['waited_s']:.1f} s for the model")
    return ", ".join([*words, f"prompt {figures['prompt_tokens']} tokens, {figures['total_s']:.1f} s in all"])


def _tree(data: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(data)
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        raise AnswerError("the server sent what is no answer; is it vllama? check --server", "not_vllama")
    return tree


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
