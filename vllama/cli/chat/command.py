"""`vllama run`: asks once, or talks."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from vllama.cli import render
from vllama.cli.control import FAILED, INTERRUPTED, USAGE, Json, Model, Server, reported

if TYPE_CHECKING:
    from vllama.cli.chat.conversation import Conversation
    from vllama.cli.chat.talk import Talk
    from vllama.cli.client import Client


def run(
    model: Model,
    prompt: Annotated[list[str] | None, typer.Argument(help="What to ask; without it you talk.")] = None,
    system: Annotated[
        str, typer.Option("--system", metavar="TEXT", help="What the model is told first.")
    ] = "",
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A parameter, for example temperature=0. Repeatable."
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Tokens per second, time to the first token.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print the text as it comes; draw no Markdown.")
    ] = False,
    server: Server = None,
    json: Json = False,
) -> None:
    """Talk to a model, or ask it once: with a PROMPT, or with what is piped in, or both."""
    from vllama.cli.chat.conversation import Conversation
    from vllama.cli.folders import config_dir
    from vllama.cli.own_server import a_server

    question = _question(prompt or ())
    if not question and not _at_terminal():
        _usage(
            "there is nothing to ask: give a PROMPT, or pipe a text in; on a terminal `vllama run MODEL` talks"
        )
    if not question and json:
        _usage("--json answers one question: give a PROMPT, or pipe a text in")
    conversation = Conversation(model, system, _parameters(given or ()))
    with reported(), a_server(server, lambda: _in_cache(model)) as client:
        _run(client, conversation, config_dir(), question, verbose=verbose, plain=plain, json=json)


def _in_cache(model: str) -> None:
    """What is not there, or cannot chat, needs no server to be refused. Raises ValueError, AnswerError."""
    from vllama.cli import local_cache
    from vllama.cli.chat.talk import ChatError, chats
    from vllama.cli.client import AnswerError

    try:
        chats(local_cache.card(model))
    except ChatError as error:
        raise AnswerError(str(error), "bad_request") from error


def _run(
    client: "Client",
    conversation: "Conversation",
    folder: Path,
    question: str,
    *,
    verbose: bool,
    plain: bool,
    json: bool,
) -> None:
    from vllama.cli.chat.talk import ChatError, Talk

    talk = Talk(client, conversation, folder, verbose=verbose, markdown=not plain)
    try:
        if question:
            _ask(talk, question, verbose=verbose, json=json)
        else:
            talk.begin()
            render.aside(f"{conversation.model} is awake. /? for help, Ctrl-D to leave.")
            talk.run()
    except ChatError as error:
        render.complain(str(error))
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error


def _ask(talk: "Talk", question: str, *, verbose: bool, json: bool) -> None:
    from vllama.cli.chat.answer import told

    talk.find()
    answer = talk.ask(question, silent=json)
    if json:
        render.as_json(
            {"model": talk.conversation.model, "answer": answer.text, "finish_reason": answer.finish}
            | answer.figures()
        )
    elif verbose:
        render.note(told(answer.figures()))


def _question(prompt: Sequence[str]) -> str:
    """What is piped in stands before what is asked about it, with a blank line between."""
    piped = ""
    if sys.stdin is not None and not sys.stdin.isatty():
        try:
            piped = sys.stdin.read().strip("\n")
        except UnicodeDecodeError:
            _usage("what is piped in is no text in UTF-8")
    return "\n\n".join(part for part in (piped, " ".join(prompt)) if part.strip())


def _at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _parameters(given: Sequence[str]) -> dict[str, Any]:
    from vllama.cli.chat.parameters import ParameterError, parameter

    found = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            _usage(f"--set {pair}: write NAME=VALUE")
        try:
            known, number = parameter(name, value)
        except ParameterError as error:
            _usage(f"--set {pair}: {error}")
        if number is not None:
            found[known] = number
    return found


def _usage(text: str) -> NoReturn:
    render.complain(text)
    raise typer.Exit(USAGE)
