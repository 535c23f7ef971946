"""POST /api/chat and /api/generate: which of vLLM's routes a request becomes, and what is said in it."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from vllama.api.ollama import options as opt
from vllama.api.ollama.answer import Answer, Voice, as_message, as_response
from vllama.api.ollama.clock import Clock
from vllama.api.ollama.load import load
from vllama.api.ollama.messages import messages, tools
from vllama.api.ollama.names import known
from vllama.api.ollama.relay import Relay
from vllama.api.ollama.request import body_of, flag
from vllama.api.proxy import Edge
from vllama.errors import BadRequest

CHAT, GENERATE = "/api/chat", "/api/generate"
_ENGINE_CHAT, _ENGINE_TEXT = "/v1/chat/completions", "/v1/completions"


class Chat:
    """A conversation; without messages a load, or an unload."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, request: Request) -> Response:
        clock, tree = Clock(), await body_of(request, self._edge.desk.config.body_bytes_max)
        if not tree.get("messages"):
            return await load(self._edge, request, tree, as_message("", "", []))
        body = {"messages": messages(tree["messages"]), **tools(tree.get("tools"))}
        body |= _common(tree) | opt.logprobs(tree.get("logprobs"), tree.get("top_logprobs"))
        return await _relay(self._edge, CHAT, _ENGINE_CHAT, tree, body, as_message, clock)


class Generate:
    """A prompt: as a message of a user, or as it is (`raw`, and with a `suffix`); without one a load, or an unload."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, request: Request) -> Response:
        clock, tree = Clock(), await body_of(request, self._edge.desk.config.body_bytes_max)
        prompt, images = tree.get("prompt") or "", tree.get("images")
        if not isinstance(prompt, str):
            raise BadRequest("prompt must be a string")
        if not prompt and not images:
            return await load(self._edge, request, tree, as_response("", "", []))
        if tree.get("template"):
            raise BadRequest(
                "template is Ollama's own language: vllama uses the model's chat template; send `raw` with a finished prompt"
            )
        if tree.get("context"):
            raise BadRequest("context is not kept: send the conversation to /api/chat instead")
        if flag(tree, "raw", default=False) or tree.get("suffix"):
            return await self._plain(tree, prompt, clock)
        said = {"role": "user", "content": prompt, "images": images}
        system = [{"role": "system", "content": tree["system"]}] if tree.get("system") else []
        body = {"messages": messages([*system, said])} | _common(tree)
        body |= opt.logprobs(tree.get("logprobs"), tree.get("top_logprobs"))
        return await _relay(self._edge, GENERATE, _ENGINE_CHAT, tree, body, as_response, clock)

    async def _plain(self, tree: dict[str, Any], prompt: str, clock: Clock) -> Response:
        """The prompt as it is: no template, no messages."""
        for name in ("images", "system", "think"):
            if tree.get(name):
                raise BadRequest(f"{name} has no place in a prompt that is sent as it is (raw, suffix)")
        body: dict[str, Any] = {"prompt": prompt, "max_tokens": None} | _common(tree)
        if tree.get("suffix"):
            body["suffix"] = tree["suffix"]
        if wanted := opt.logprobs(tree.get("logprobs"), tree.get("top_logprobs")):
            body["logprobs"] = wanted["top_logprobs"]
        return await _relay(self._edge, GENERATE, _ENGINE_TEXT, tree, body, as_response, clock)


def _common(tree: dict[str, Any]) -> dict[str, Any]:
    return opt.sampling(tree.get("options")) | opt.form(tree.get("format")) | opt.thinking(tree.get("think"))


async def _relay(
    edge: Edge, route: str, path: str, tree: dict[str, Any], body: dict[str, Any], voice: Voice, clock: Clock
) -> Response:
    named = tree.get("model")
    stream = flag(tree, "stream", default=True)
    meant = await known(edge.desk, named)
    body |= {"model": meant.served, "stream": True, "stream_options": {"include_usage": True}}
    if tree.get("keep_alive") is not None:
        body["keep_alive"] = tree["keep_alive"]  # the data path takes it out again
    words = Answer(str(named), voice, clock, stream=stream, thoughts=tree.get("think") is not False)
    return Relay(edge, route, path, body, words, clock, named=str(named), stream=stream)
