"""`list`, `show`, `pull`, `rm`, `cp`: the models of this machine. All but `show` work without a server, on the cache itself."""

import json as jsonlib
from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import typer

from vllama.cli import listing, render
from vllama.cli.client import AnswerError, Client, ServerDownError
from vllama.cli.control import INTERRUPTED, Json, Model, Server, open_client, reported

T = TypeVar("T")


def list_models(server: Server = None, json: Json = False) -> None:
    """List the models of the cache: what each does, its size, when it changed, its state."""
    from vllama.cli import local_cache

    models = _served(server, lambda client: client.get("/control/models")["models"], local_cache.listed)
    (render.as_json if json else listing.models)({"models": models})


def show(model: Model, server: Server = None, json: Json = False) -> None:
    """Show a model: its files, its settings, and what it will take of which device, and why."""
    with open_client(server) as client:
        answer = client.get(f"/control/show?model={quote(model, safe='')}")
        (render.as_json if json else listing.shown)(answer)


def rm(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Models, or aliases.", autocompletion=listing.names),
    ],
    stop: Annotated[bool, typer.Option("--stop", help="End its engine first, if it has one.")] = False,
    server: Server = None,
    json: Json = False,
) -> None:
    """Remove a model's files from the cache; of an alias only the name."""
    answers = []
    for model in models:
        answers.append(_removed(server, model, stop=stop))
        if not json:
            listing.removed(answers[-1])
    if json:
        render.as_json({"removed": answers})


def _removed(server: str | None, model: str, *, stop: bool) -> dict[str, Any]:
    from vllama.cli import local_cache

    return _served(
        server,
        lambda client: client.post("/control/delete", {"model": model, "stop": stop}),
        lambda: local_cache.removed(model),
    )


def cp(
    source: Annotated[str, typer.Argument(metavar="MODEL", help="A model.", autocompletion=listing.names)],
    destination: Annotated[str, typer.Argument(metavar="NAME", help="One more name for it: an alias.")],
    server: Server = None,
    json: Json = False,
) -> None:
    """Give a model one more name. No file is copied: it is an alias in models.yaml."""
    from vllama.cli import local_cache

    body = {"source": source, "destination": destination}
    answer = _served(
        server,
        lambda client: client.post("/control/copy", body),
        lambda: local_cache.copied(source, destination),
    )
    if json:
        render.as_json(answer)
    else:
        render.say(f"{answer['alias']}: another name of {answer['model']}")


def pull(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="ORG/NAME, as the hub has it.")],
    revision: Annotated[str, typer.Option("--revision", help="A branch, a tag or a commit.")] = "main",
    server: Server = None,
    json: Json = False,
) -> None:
    """Bring a model from the hub into the cache; one that was broken off goes on where it was. HF_ENDPOINT names another hub."""
    from vllama.cli import local_cache

    steps = listing.Steps(model, revision) if not json else None
    again = f"vllama pull {model}" + ("" if revision == "main" else f" --revision {revision}")
    told = steps.take if steps is not None else lambda step: render.say(jsonlib.dumps(step))
    try:
        with steps or listing.NOTHING:
            _served(
                server,
                lambda client: _pulled(client, model, revision, again, told),
                lambda: local_cache.pulled(model, revision, told),
            )
    except KeyboardInterrupt as error:
        render.complain(f"{model} is not complete: `{again}` goes on from there")
        raise typer.Exit(INTERRUPTED) from error
    if steps is not None:
        render.say(steps.summary)


def _pulled(
    client: Client, model: str, revision: str, again: str, told: Callable[[dict[str, Any]], None]
) -> None:
    """Raises ServerDownError, AnswerError."""
    done = False
    with client.answering("/control/pull", {"model": model, "revision": revision}) as answer:
        while line := answer.readline():
            step = jsonlib.loads(line)
            if error := step.get("error"):
                raise AnswerError(str(error["message"]), str(error["code"]))
            told(step)
            done = step.get("status") == "success"
    if not done:
        raise ServerDownError(f"the server ended before {model} was complete: `{again}` goes on from there")


def _served(server: str | None, by_server: Callable[[Client], T], by_hand: Callable[[], T]) -> T:
    """By the server that runs; where none does, and none was named, by hand."""
    with reported():
        try:
            return by_server(Client(server))
        except ServerDownError as error:
            if server is not None or not error.nobody:
                raise
        return by_hand()
