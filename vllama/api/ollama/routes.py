"""Which of Ollama's routes there are. Errors that are raised here get Ollama's shape, whatever raised them."""

from collections.abc import Awaitable, Callable, Iterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from vllama.api.ollama import show, store, tags
from vllama.api.ollama.chat import CHAT, GENERATE, Chat, Generate
from vllama.api.ollama.embed import EMBED, EMBEDDINGS, Embed, Embeddings
from vllama.api.ollama.errors import error_answer
from vllama.api.proxy import Edge
from vllama.errors import VllamaError

Endpoint = Callable[[Request], Awaitable[Response]]


def routes(edge: Edge) -> Iterator[BaseRoute]:
    """All of them, over the shared parts of the data path."""
    for path, get in (
        ("/", tags.root),
        ("/api/version", tags.version),
        ("/api/tags", tags.tags),
        ("/api/ps", tags.ps),
    ):
        yield Route(path, _answering(get), methods=["GET"])  # and HEAD
    posts: list[tuple[str, Endpoint]] = [
        (CHAT, Chat(edge).__call__),
        (GENERATE, Generate(edge).__call__),
        (EMBED, Embed(edge).__call__),
        (EMBEDDINGS, Embeddings(edge).__call__),
        ("/api/show", show.show),
        ("/api/pull", store.pull_model),
        ("/api/copy", store.copy_model),
        ("/api/create", store.unserved),
        ("/api/push", store.unserved),
    ]
    for path, post in posts:
        yield Route(path, _answering(post), methods=["POST"])
    yield Route("/api/delete", _answering(store.delete_model), methods=["DELETE"])
    yield Route("/api/blobs/{digest}", _answering(store.unserved), methods=["POST", "HEAD"])


def _answering(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except VllamaError as error:
            return error_answer(error)

    return answer
