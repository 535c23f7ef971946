"""The measurements: answers alone and side by side, embeddings, and how long a model takes to sleep and to come back."""

import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from vllama.cli.chat.answer import Answer
from vllama.cli.client import Client

QUESTION = "Tell a long story about a lighthouse keeper, with many details."
# As long as a paragraph of a document that somebody searches in.
PASSAGE = (
    "The lighthouse stood on a rock in the sea, and its keeper lit the lamp each evening as the sun went down. "
    * 3
)


def _body(model: str, tokens: int, number: int) -> dict[str, Any]:
    """`number` makes each question another one, so that no cache of prefixes answers for the engine."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": f"[{number}] {QUESTION}"}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


class Bench:
    """One model on one server. Every method may raise ServerDownError, AnswerError."""

    def __init__(self, client: Client, model: str, kind: str) -> None:
        self._client = client
        self._model = model
        self._kind = kind
        self._number = 0

    # --- generating

    def alone(self, rounds: int, tokens: int) -> dict[str, Any]:
        """One answer after the other: medians."""
        figures = [self._answer(tokens).figures() for _ in range(rounds)]
        rates = [each["tokens_per_s"] for each in figures if each["tokens_per_s"] is not None]
        return {
            "streams": 1,
            "tokens_per_s": round(median(rates), 2) if rates else None,
            "first_token_s": _median([each["first_token_s"] for each in figures]),
            "tokens": sum(each["tokens"] for each in figures),
        }

    def together(self, streams: int, tokens: int) -> dict[str, Any]:
        """So many answers at once: all their tokens over the time that all of them took."""
        begun = time.monotonic()
        with ThreadPoolExecutor(streams) as pool:
            figures = [each.figures() for each in pool.map(lambda _: self._answer(tokens), range(streams))]
        took = time.monotonic() - begun
        total = sum(each["tokens"] for each in figures)
        return {
            "streams": streams,
            "tokens_per_s": round(total / took, 2),
            "first_token_s": _median([each["first_token_s"] for each in figures]),
            "tokens": total,
        }

    def _answer(self, tokens: int) -> Answer:
        answer = Answer(self._client, _body(self._model, tokens, self._next()))
        for _ in answer:
            pass
        return answer

    # --- embedding and ranking

    def pooled(self, streams: int, rounds: int, batch: int) -> dict[str, Any]:
        """Texts a second: `streams` requests at once, each of `batch` texts, `rounds` after one another."""
        begun = time.monotonic()
        with ThreadPoolExecutor(streams) as pool:
            times = list(pool.map(lambda _: self._pool(batch), range(streams * rounds)))
        took = time.monotonic() - begun
        return {
            "streams": streams,
            "batch": batch,
            "texts_per_s": round(streams * rounds * batch / took, 2),
            "request_s": round(median(times), 4),
        }

    def _pool(self, batch: int) -> float:
        texts = [f"{self._next()} {PASSAGE}" for _ in range(batch)]
        begun = time.monotonic()
        if self._kind == "rerank":
            body = {"model": self._model, "query": QUESTION, "documents": texts}
            self._client.post("/v1/rerank", body)
        else:
            self._client.post("/v1/embeddings", {"model": self._model, "input": texts})
        return time.monotonic() - begun

    # --- switching

    def come_up(self) -> dict[str, Any]:
        """The first request: how it found the model, and what it waited for it."""
        state, waited_s = self._touch()
        return {"state": state, "waited_s": round(waited_s, 3)}

    def switch(self, level: int) -> dict[str, Any]:
        """To sleep and back by a request: what each took. `note` says why it is not the level that was asked for."""
        begun = time.monotonic()
        slept = self._client.post("/control/sleep", {"model": self._model, "level": level})
        sleep_s = time.monotonic() - begun
        state, waited_s = self._touch()
        reached = slept["level"] if slept["phase"] == "asleep" else 3
        return {
            "asked": level,
            "level": reached,
            "sleep_s": round(sleep_s, 3),
            "wake_s": round(waited_s, 3),
            "came": state,
            "note": slept["note"],
        }

    def _touch(self) -> tuple[str, float]:
        """The least that can be asked. How the request found the model, and how long it waited, by the server's answer."""
        if self._kind == "rerank":
            path, body = "/v1/rerank", {"model": self._model, "query": "a", "documents": ["b"]}
        elif self._kind == "embedding":
            path, body = "/v1/embeddings", {"model": self._model, "input": "a"}
        else:
            path, body = "/v1/chat/completions", _body(self._model, 1, self._next()) | {"stream": False}
            del body["stream_options"]
        with self._client.answering(path, body) as answer:
            answer.read()
            waited = answer.headers.get("X-Vllama-Wait-Ms", "0")
            return answer.headers.get("X-Vllama-State", ""), float(waited) / 1000

    def _next(self) -> int:
        self._number += 1
        return self._number


def _median(values: list[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return round(median(found), 4) if found else None
