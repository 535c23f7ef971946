"""`explain`: why things went as they did. `plan`: what would happen now."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from vllama.cli import render
from vllama.cli.client import AnswerError, Client
from vllama.cli.completion import model_names
from vllama.cli.control import Json, Model, Server, open_client


def explain(
    about: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL|REQUEST]",
            help="A model, or the X-Request-Id of an answer; neither: all that happened last.",
            autocompletion=model_names,
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the latest.")] = 20,
    server: Server = None,
    json: Json = False,
) -> None:
    """Say why: each wait, eviction and refusal, who was short of what, who went, and who was spared."""
    with open_client(server) as client:
        answer = _explained(client, about, limit)
        if json:
            render.as_json(answer)
            return
        for explanation in answer["explanations"]:
            render.say(explanation["words"])
        if not answer["explanations"]:
            render.say("Nobody has waited, been evicted or been refused.")


def _explained(client: Client, about: str | None, limit: int) -> dict[str, Any]:
    """What it is about is a request if there is one of that id, else a model."""
    if about is None:
        return client.get(f"/debug/explain?limit={limit}")
    name = quote(about, safe="")
    try:
        return client.get(f"/debug/explain?request={name}&limit={limit}")
    except AnswerError as error:
        if error.code != "request_not_found":
            raise
    try:
        return client.get(f"/debug/explain?model={name}&limit={limit}")
    except AnswerError as error:
        if error.code != "model_not_found":
            raise
        raise AnswerError(
            f"{error} (nor does the server remember a request of this id)", error.code
        ) from error


def plan(model: Model, server: Server = None, json: Json = False) -> None:
    """Say what would happen if a model were asked for now: whether it is awake, would wake or start, who would go for it."""
    with open_client(server) as client:
        answer = client.get(f"/debug/plan?model={quote(model, safe='')}")
        if json:
            render.as_json(answer)
        else:
            render.say(answer["words"])
