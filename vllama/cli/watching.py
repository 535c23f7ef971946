"""`logs` and `events`: what a server writes, as it writes it."""

import json as jsonlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from vllama.cli import render
from vllama.cli.client import Client
from vllama.cli.completion import model_names
from vllama.cli.control import FAILED, Json, Model, Server, open_client

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")]


def logs(
    model: Model,
    follow: Follow = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 100,
    server: Server = None,
) -> None:
    """Show the log of a model's engine."""
    with _until_interrupted(), open_client(server) as client:
        path = f"/control/logs?model={quote(model, safe='')}&lines={lines}&follow={int(follow)}"
        for part in client.stream(path, follow=follow):
            render.raw(part)


def events(
    follow: Follow = False,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Of this model alone.", autocompletion=model_names),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save", metavar="FILE", help="Write it to a file for `vllama replay`.", dir_okay=False
        ),
    ] = None,
    server: Server = None,
    json: Json = False,
) -> None:
    """Print all that has happened, one JSON object a line; first the state before it, so that a saved file can be folded."""
    del json  # the lines are JSON in any case
    if save is not None:
        if follow or model is not None:
            raise typer.BadParameter(
                "it saves all that has happened until now: leave --follow and --model out"
            )
        with open_client(server) as client:
            _save(client, save)
        return
    with _until_interrupted(), open_client(server) as client:
        actor = None
        if model is not None:
            card = client.get(f"/v1/models/{quote(model, safe='/')}")
            actor = str(card.get("parent") or card["id"])
        last = 0
        for line in client.stream("/debug/journal"):
            row = jsonlib.loads(line)
            last = max(last, row["seq"])
            if row["kind"] == "End" and follow:  # what follows would stand behind the end
                break
            if (kept := _of(row, actor)) is not None:
                render.say(jsonlib.dumps(kept, ensure_ascii=False))
        if follow:
            query = f"&model={quote(actor, safe='')}" if actor else ""
            for row in _sent(client, f"/debug/events?since={last}{query}"):
                render.say(jsonlib.dumps(row, ensure_ascii=False))


def _save(client: Client, path: Path) -> None:
    """The whole journal, or the file as it was."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    lines = 0
    try:
        with part.open("wb") as file:
            for line in client.stream("/debug/journal"):
                file.write(line)
                lines += 1
        part.replace(path)
    except OSError as error:
        render.complain(f"{path} cannot be written: {error.strerror}; name another file")
        raise typer.Exit(FAILED) from error
    finally:
        part.unlink(missing_ok=True)
    render.say(f"{path}: {max(lines - 2, 0)} records; `vllama replay {path}` tells them")


def _of(row: dict[str, Any], actor: str | None) -> dict[str, Any] | None:
    """The part of a row that concerns this actor; None for nothing."""
    if actor is None:
        return row
    if "states" in row:
        return row | {"states": {name: state for name, state in row["states"].items() if name == actor}}
    return row if row.get("actor") == actor else None


def _sent(client: Client, path: str) -> Iterator[dict[str, Any]]:
    """The data of server-sent events."""
    for line in client.stream(path, follow=True):
        if line.startswith(b"data:"):
            yield jsonlib.loads(line[5:])


@contextmanager
def _until_interrupted() -> Iterator[None]:
    """Ctrl-C is how one stops following: no error, wherever it falls."""
    try:
        yield
    except KeyboardInterrupt:
        return
