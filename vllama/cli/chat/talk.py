"""A chat at the keyboard: questions, their answers, and the /commands in between."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vllama.cli import render
from vllama.cli.chat.answer import Answer, told
from vllama.cli.chat.conversation import Conversation, ConversationError, place
from vllama.cli.chat.keyboard import Keyboard, unquoted
from vllama.cli.chat.parameters import KINDS, ParameterError, parameter
from vllama.cli.chat.printing import Printer, Silent, printer
from vllama.cli.chat.waiting import told_of_wait
from vllama.cli.client import AnswerError, Client, ServerDownError

HELP = '''/set system TEXT          what the model is told before everything else
/set temperature 0.7      or any parameter: {parameters}
/set NAME default         take a parameter out
/set verbose | quiet      say tokens per second and the time to the first token, or not
/set markdown | plain     draw Markdown, or print the text as it is
/set think | nothink      for models that can think before they answer
/set history | nohistory  keep what is typed for the next time, or not
/show                     what is set, and how long the conversation is
/clear                    forget the conversation
/save NAME, /load NAME    keep it as a file, take it up again; NAME.json is a path
/load MODEL               go on with another model
/bye                      leave; so does Ctrl-D. Ctrl-C stops the answer
"""                       begins and ends a text of several lines'''

COMMANDS = ("/?", "/help", "/set", "/show", "/clear", "/save", "/load", "/bye", "/exit")


SHUT = (
    "invalid_api_key",
    "forbidden",
    "control_disabled",
)  # control is not for this caller; the data path may be


class ChatError(Exception):
    """A /command that cannot be done; the message says what can."""


def is_chat(client: Client, name: str) -> str:
    """The canonical id of a model that can chat. Raises ChatError, ServerDownError, AnswerError."""
    return chats(client.get(f"/v1/models/{quote(name, safe='/')}"))


def chats(card: Mapping[str, Any]) -> str:
    """The same of its card. Raises ChatError."""
    does = {"embedding": ("makes embeddings", "/v1/embeddings"), "rerank": ("ranks texts", "/v1/rerank")}
    if (found := does.get(str(card.get("kind")))) is not None:
        raise ChatError(
            f"{card['id']} {found[0]} and cannot chat: use it by POST {found[1]}; `vllama list` shows which models chat"
        )
    return str(card.get("parent") or card["id"])


class Talk:
    """One chat, from the first prompt to the last."""

    def __init__(
        self, client: Client, conversation: Conversation, folder: Path, *, verbose: bool, markdown: bool
    ) -> None:
        self.conversation = conversation
        self.verbose = verbose
        self.markdown = markdown
        self._client = client
        self._folder = folder
        self._actor = ""
        self._keyboard: Keyboard | None = None

    # --- asking

    def find(self) -> None:
        """See that the model is there and can chat. Raises ChatError, ServerDownError, AnswerError."""
        self._actor = is_chat(self._client, self.conversation.model)

    def begin(self) -> None:
        """Bring the model up, so that the first question finds it awake. Raises ChatError, ServerDownError, AnswerError."""
        self.find()
        with told_of_wait(self._client, self._actor, self._notes):
            try:
                self._client.post("/control/start", {"model": self.conversation.model})
            except AnswerError as error:
                if error.code not in SHUT:
                    raise  # without control the first question brings it up

    def ask(self, question: str, *, silent: bool = False) -> Answer:
        """One question, its answer as it comes. Ctrl-C stops it: what came is kept. Raises ServerDownError, AnswerError,
        KeyboardInterrupt."""
        answer = Answer(self._client, self.conversation.body(question))
        out = Silent() if silent else printer(markdown=self.markdown)
        try:
            with told_of_wait(self._client, self._actor, self._notes) as over:
                for piece in answer:
                    over.set()
                    _put(out, piece.kind, piece.text)
        finally:
            out.end()
            if answer.text:
                self.conversation.heard(question, answer.text)
        if answer.finish == "length":
            render.complain(
                "the answer was cut at its longest; `max_tokens` and the context length say how long"
            )
        return answer

    # --- the keyboard

    def run(self) -> None:
        """Until /bye or Ctrl-D."""
        keyboard = self._keyboard = Keyboard(self._folder / "history", COMMANDS)
        try:
            while True:
                try:
                    typed = keyboard.read()
                except KeyboardInterrupt:
                    render.say("\n(Ctrl-D or /bye leaves)")
                    continue
                if typed is None:
                    render.say("")
                    return
                if typed.strip() in ("/bye", "/exit"):
                    return
                self._do(typed.strip())
        finally:
            keyboard.close()

    def _do(self, typed: str) -> None:
        """One line, and what goes wrong with it, which ends nothing."""
        try:
            if typed.startswith("/") and typed[1:2] not in ("/", "*"):
                self.command(typed)
            elif question := unquoted(typed):
                answer = self.ask(question)
                if self.verbose:
                    render.aside(told(answer.figures()))
                render.say("")
        except KeyboardInterrupt:
            render.say("(stopped)\n")
        except (ChatError, ConversationError, ParameterError, ServerDownError, AnswerError) as error:
            render.complain(str(error))

    # --- the /commands

    def command(self, typed: str) -> None:
        """One of them. Raises ChatError, ConversationError, ParameterError, ServerDownError, AnswerError."""
        name, _, rest = typed.partition(" ")
        rest = rest.strip()
        match name:
            case "/?" | "/help":
                render.say(HELP.format(parameters=", ".join(list(KINDS)[1:])))
            case "/set":
                self._set(rest)
            case "/show":
                self._show()
            case "/clear":
                self.conversation.messages.clear()
                render.aside("the conversation is forgotten; what is set stays")
            case "/save":
                path = place(_needed(rest, "/save NAME"), self._folder / "chats")
                self.conversation.save(path)
                render.aside(f"saved: {path}")
            case "/load":
                self._load(_needed(rest, "/load NAME, or /load MODEL"))
            case _:
                raise ChatError(f"there is no {name}; /? lists what there is, // begins a text with a slash")

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if name == "parameter":  # as Ollama has it
            name, _, value = value.strip().partition(" ")
        if (switch := self._switches().get(name)) is not None:
            switch()
        elif name == "system":
            self.conversation.system = unquoted(value)
            render.aside(
                "the system message is set" if value.strip() else "there is no system message any more"
            )
        else:
            known, found = parameter(
                _needed(name, "/set NAME VALUE; /? lists what can be set"),
                _needed(value, f"/set {name} VALUE"),
            )
            if found is None:
                self.conversation.parameters.pop(known, None)
            else:
                self.conversation.parameters[known] = found
            render.aside(f"{known}: {'the default' if found is None else found}")

    def _switches(self) -> dict[str, Callable[[], None]]:
        def change(words: str, **values: object) -> Callable[[], None]:
            def done() -> None:
                for key, value in values.items():
                    setattr(self.conversation if key == "think" else self, key, value)
                render.aside(words)

            return done

        return {
            "verbose": change("figures are told after each answer", verbose=True),
            "quiet": change("no figures are told", verbose=False),
            "markdown": change("Markdown is drawn", markdown=True),
            "plain": change("text is printed as it comes", markdown=False),
            "think": change("the model thinks first, if it can", think=True),
            "nothink": change("the model answers at once", think=False),
            "history": lambda: self._remember(True),
            "nohistory": lambda: self._remember(False),
        }

    def _remember(self, wanted: bool) -> None:
        if self._keyboard is not None:
            self._keyboard.remember(wanted)
        render.aside("what is typed is kept" if wanted else "what is typed from now on is not kept")

    def _show(self) -> None:
        conversation = self.conversation
        values = {
            "model": conversation.model,
            "system": conversation.system,
            **conversation.parameters,
            "verbose": self.verbose,
            "markdown": self.markdown,
            "think": "as the model has it" if conversation.think is None else conversation.think,
            "questions": len(conversation.messages) // 2,
        }
        render.tree(values, "")

    def _load(self, name: str) -> None:
        path = None
        try:
            path = place(name, self._folder / "chats")
        except ConversationError:  # then it can only be a model
            path = None
        if path is not None and path.is_file():
            loaded = Conversation.load(path)
            before, self.conversation = self.conversation, loaded
            words = f"{path}: {len(loaded.messages) // 2} questions, with {loaded.model}"
        else:
            before = self.conversation
            self.conversation = Conversation(
                name, before.system, dict(before.parameters), before.think, list(before.messages)
            )
            words = f"the conversation goes on with {name}"
        try:
            self.begin()
        except BaseException:
            self.conversation = before
            raise
        render.aside(words)

    @property
    def _notes(self) -> Path:
        return self._folder / "waits.json"


def _needed(text: str, how: str) -> str:
    if not text.strip():
        raise ChatError(f"write {how}")
    return text.strip()


def _put(out: Printer, kind: str, text: str) -> None:
    (out.thought if kind == "thought" else out.text)(text)
