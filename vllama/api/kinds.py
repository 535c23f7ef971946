"""Which routes a kind of model surely does not serve: said here, before memory is made for an engine that would only answer 404.

Sure means that vLLM mounts one runner's routes, and that the warm-up has held the engine to its kind. Of everything else the
engine is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vllama.errors import RouteUnserved, VllamaError

_GENERATING = frozenset({
    "/v1/chat/completions", "/v1/chat/completions/batch", "/v1/completions", "/v1/responses", "/v1/messages",
    "/v1/messages/count_tokens", "/generative_scoring",
})  # fmt: skip
_EMBEDDING = frozenset({"/v1/embeddings"})
_SCORING = frozenset({"/v1/score", "/score", "/v1/rerank", "/v2/rerank", "/rerank"})


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a model does, in words; the routes to use instead; the routes that it lacks."""

    does: str
    use: str
    lacks: frozenset[str]


_KINDS: Mapping[str, _Kind] = {
    "chat": _Kind("generates text", "/v1/chat/completions or /v1/completions", _EMBEDDING | _SCORING | {"/classify"}),
    "embedding": _Kind("makes embeddings", "/v1/embeddings", _GENERATING),
    "rerank": _Kind("scores texts", "/v1/score or /v1/rerank", _GENERATING | _EMBEDDING),
}  # fmt: skip


def unserved(kind: str, path: str, model: str) -> VllamaError | None:
    """The error for a path that a model of this kind surely does not serve; None where the engine has to be asked."""
    known = _KINDS.get(kind)
    if known is None or path not in known.lacks:
        return None
    return RouteUnserved(f"{model} {known.does}: it does not serve {path}. Use {known.use}", model=model)
