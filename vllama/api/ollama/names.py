"""Model names as Ollama's clients write them: with a tag, which is `latest` where they were given none."""

from vllama.actors import Desk, Route
from vllama.errors import BadRequest, ModelUnknown

LATEST = ":latest"
_HUBS = ("hf.co/", "huggingface.co/")


def tagged(name: str) -> str:
    """A model's name as it is listed: clients look for the name with its tag."""
    return name if ":" in name else name + LATEST


def untagged(name: str) -> str:
    return name.removesuffix(LATEST)


async def known(desk: Desk, name: object) -> Route:
    """The model that a client means, by its own spelling or without the tag. Raises BadRequest, ModelUnknown."""
    if not isinstance(name, str) or not name:
        raise BadRequest("model is required")
    plain = untagged(name)
    route = desk.find(name) or desk.find(plain)
    if route is not None:
        return route
    try:
        return await desk.route(plain)
    except ModelUnknown as error:
        error.model = name
        raise


def at_hub(name: object) -> tuple[str, str]:
    """A repository of the hub and its revision: the tag, unless that is `latest`. Raises BadRequest."""
    if not isinstance(name, str) or not name:
        raise BadRequest("model is required")
    for hub in _HUBS:
        name = name.removeprefix(hub)
    model, _, revision = untagged(name).partition(":")
    return model, revision or "main"
