"""The commands that talk to a running server. Exit codes: 0 done, 1 the server said no, 2 usage, 3 no server, 130 Ctrl-C.
design/commands.md has the table."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote

import typer

from vllama.cli import render
from vllama.cli.client import AnswerError, Client, EventReader, ServerDownError
from vllama.cli.completion import model_names

FAILED, USAGE, NO_SERVER, INTERRUPTED = 1, 2, 3, 130
# How long the last events of a start may come after its answer.
LAST_EVENTS_S = 1.0
TOLD_AFTER_S = 1.0

Server = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="URL", help="The server; else VLLAMA_URL, else the settings host and port."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the server's answer as JSON.")]
Model = Annotated[
    str,
    typer.Argument(help="The model's name, as GET /v1/models lists it.", autocompletion=model_names),
]


@contextmanager
def reported() -> Iterator[None]:
    """What goes wrong with a server becomes a line on stderr and an exit code."""
    try:
        yield
    except ServerDownError as error:
        render.complain(str(error))
        raise typer.Exit(NO_SERVER) from error
    except AnswerError as error:
        render.complain(str(error))
        raise typer.Exit(FAILED) from error
    except ValueError as error:
        render.complain(str(error))
        raise typer.Exit(USAGE) from error


@contextmanager
def open_client(server: str | None) -> Iterator[Client]:
    """The server to talk to; what goes wrong becomes a line on stderr and an exit code."""
    with reported():
        yield Client(server)


def info(server: Server = None, json: Json = False) -> None:
    """Show the server's settings, devices and versions, and how engines are started."""
    with open_client(server) as client:
        answer = client.get("/control/info")
        (render.as_json if json else render.info)(answer)


def ps(server: Server = None, json: Json = False) -> None:
    """Show every model that has been asked for: its state, memory, requests and log."""
    with open_client(server) as client:
        answer = client.get("/control/ps")
        (render.as_json if json else render.ps)(answer)


def start(model: Model, server: Server = None, json: Json = False) -> None:
    """Start a model, or wake it up, and wait until it is awake."""
    with open_client(server) as client:
        if json:
            render.as_json(client.post("/control/start", {"model": model}))
            return
        with _told(client, model) as told:
            answer = client.post("/control/start", {"model": model})
            told.answered.wait(LAST_EVENTS_S)
        if answer["log"]:
            told.tell_log(answer["log"])
        render.result(answer)


def restart(model: Model, server: Server = None, json: Json = False) -> None:
    """Stop a model, whatever it is doing, and start it with the settings of now."""
    with open_client(server) as client, _told_of_waiting(client, model, "stops"):
        answer = client.post("/control/restart", {"model": model})
        if answer["log"] and not json:
            render.say(f"log: {answer['log']}")
        _show(answer, json)


def stop(model: Model, server: Server = None, json: Json = False) -> None:
    """Stop a model, whatever it is doing; clears `failed`."""
    with open_client(server) as client, _told_of_waiting(client, model, "stops"):
        _show(client.post("/control/stop", {"model": model}), json)


def sleep(
    model: Model,
    level: Annotated[
        int,
        typer.Option(
            "--level", "-l", min=1, max=3, help="1: weights in RAM; 2: weights discarded; 3: stopped."
        ),
    ] = 2,
    force: Annotated[
        bool, typer.Option("--force", help="Cut off what is in flight, do not wait for it.")
    ] = False,
    server: Server = None,
    json: Json = False,
) -> None:
    """Put a model to sleep, so that its memory is free and it can wake quickly."""
    with open_client(server) as client, _told_of_waiting(client, model, "sleeps", force=force):
        _show(client.post("/control/sleep", {"model": model, "level": level, "force": force}), json)


def _show(answer: dict[str, Any], json: bool) -> None:
    (render.as_json if json else render.result)(answer)


@contextmanager
def _told_of_waiting(client: Client, model: str, does: str, *, force: bool = False) -> Iterator[None]:
    """Who waits longer than a moment is told on stderr for what: for requests in flight there is a way not to, and who goes
    it with `force` is told of the phase alone."""

    def tell() -> None:
        try:
            card = client.get(f"/v1/models/{quote(model, safe='/')}")
            name = str(card.get("parent") or card["id"])
            views = client.get("/control/ps")["instances"]
        except (ServerDownError, AnswerError):  # the command itself will say so
            return
        for view in views:
            if view["model"] == name and not answered.is_set():
                render.complain(render.waiting(view, does, force=force))

    answered = threading.Event()
    timer = threading.Timer(TOLD_AFTER_S, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        answered.set()
        timer.cancel()


class _Progress:
    """Tells of a model's events as they come; the log's path is told once, as soon as it is known."""

    def __init__(self, model: str) -> None:
        self.answered = threading.Event()
        self._model = model
        self._log = ""

    def tell_log(self, path: str) -> None:
        if path != self._log:
            self._log = path
            render.say(f"log: {path}")

    def follow(self, events: EventReader) -> None:
        for event in events:
            if event.kind == "EnginePlaced":
                self.tell_log(event.data["log"])
            line = render.progress(event.kind, event.data)
            if line is not None:
                render.say(f"{self._model}: {line}")
            if event.kind == "CommandAnswered":
                self.answered.set()


@contextmanager
def _told(client: Client, model: str) -> Iterator[_Progress]:
    """Progress is told while the body runs, from before its first step."""
    told = _Progress(model)
    events = client.events(model)
    reader = threading.Thread(target=told.follow, args=(events,), daemon=True)
    reader.start()
    try:
        yield told
    finally:
        events.hang_up()
        reader.join()
        events.close()
