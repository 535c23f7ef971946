"""POST /api/embed and /api/embeddings: vectors by vLLM's embeddings route."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from vllama.api.ollama.clock import Clock
from vllama.api.ollama.load import load
from vllama.api.ollama.names import known
from vllama.api.ollama.options import sampling
from vllama.api.ollama.relay import Relay
from vllama.api.ollama.request import body_of, flag
from vllama.api.proxy import Edge
from vllama.errors import BadRequest

EMBED, EMBEDDINGS = "/api/embed", "/api/embeddings"
_ENGINE = "/v1/embeddings"


class Embed:
    """Several texts or one, each to a vector; without any a load, or an unload."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, request: Request) -> Response:
        clock, tree = Clock(), await body_of(request, self._edge.desk.config.body_bytes_max)
        given = tree.get("input")
        texts = [given] if isinstance(given, str) and given else given or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise BadRequest("invalid input type: input must be a string or an array of strings")
        sampling(tree.get("options"))  # none of them has a meaning here; what is wrong is said all the same
        if not texts:
            return await load(self._edge, request, tree, {"embeddings": []})
        body: dict[str, Any] = {"input": texts}
        if flag(tree, "truncate", default=True):
            body["truncate_prompt_tokens"] = -1
        if tree.get("dimensions"):
            body["dimensions"] = tree["dimensions"]
        return await _relay(self._edge, EMBED, tree, body, clock)


class Embeddings:
    """One text to one vector: the route of before /api/embed."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, request: Request) -> Response:
        clock, tree = Clock(), await body_of(request, self._edge.desk.config.body_bytes_max)
        prompt = tree.get("prompt") or ""
        if not isinstance(prompt, str):
            raise BadRequest("prompt must be a string")
        if not prompt:
            return await load(self._edge, request, tree, {"embedding": []})
        body = {"input": [prompt], "truncate_prompt_tokens": -1}
        return await _relay(self._edge, EMBEDDINGS, tree, body, clock)


async def _relay(
    edge: Edge, route: str, tree: dict[str, Any], body: dict[str, Any], clock: Clock
) -> Response:
    named = str(tree.get("model"))
    body |= {"model": (await known(edge.desk, tree.get("model"))).served, "encoding_format": "float"}
    if tree.get("keep_alive") is not None:
        body["keep_alive"] = tree["keep_alive"]
    words = Vectors(named, clock, one=route == EMBEDDINGS)
    return Relay(edge, route, _ENGINE, body, words, clock, named=named, stream=False)


class Vectors:
    """The engine's list in the order of the texts."""

    def __init__(self, named: str, clock: Clock, *, one: bool) -> None:
        self._named, self._clock, self._one = named, clock, one
        self._parts: list[bytes] = []
        self._failure: tuple[int, str] | None = None

    def failure(self) -> tuple[int, str] | None:
        return self._failure

    def take(self, chunk: bytes) -> list[dict[str, Any]]:
        self._parts.append(chunk)
        return []

    def end(self) -> list[dict[str, Any]]:
        try:
            tree = json.loads(b"".join(self._parts))
            vectors = [item["embedding"] for item in sorted(tree["data"], key=lambda item: item["index"])]
        except (ValueError, KeyError, TypeError) as error:
            self._failure = (502, f"the engine did not answer as it should: {error!r}")
            return []
        if self._one:
            return [{"embedding": vectors[0] if vectors else []}]
        times: dict[str, Any] = dict(
            self._clock.durations((tree.get("usage") or {}).get("prompt_tokens"), None)
        )
        kept: dict[str, Any] = {
            name: times[name]
            for name in ("total_duration", "load_duration", "prompt_eval_count")
            if name in times
        }
        return [{"model": self._named, "embeddings": vectors, **kept}]
