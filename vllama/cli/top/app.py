"""The screen, its keys, and what they do. Nothing here waits for the server: threads do, and post what came."""

import threading
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer

from vllama.cli.client import AnswerError, Client, ServerDownError
from vllama.cli.top.feed import Feed, Happened, Lost, State
from vllama.cli.top.logview import LogView
from vllama.cli.top.parts import Devices, Events, Head, Models

CSS = """
Head { height: 1; background: $panel; }
Devices { height: auto; max-height: 8; padding: 0 1; margin: 1 0; }
Models { height: 1fr; min-height: 4; }
Models.-lost, Devices.-lost { opacity: 50%; }
Events { height: 30%; min-height: 5; border-top: solid $panel; padding: 0 1; color: $text-muted; scrollbar-size-vertical: 1; }
#log-head { height: 1; background: $panel; }
#log { padding: 0 1; }
"""


PARTS = (Head.__name__, Devices.__name__, Models.__name__, Events.__name__)


class Top(App[None]):
    """One server, watched."""

    CSS = CSS
    TITLE = "vllama"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "start", "wake"),
        Binding("s", "sleep(2)", "sleep"),
        Binding("1", "sleep(1)", "sleep in RAM"),
        Binding("x", "stop", "stop"),
        Binding("l", "log", "log"),
        Binding("q", "quit", "quit"),
    ]

    class Came(Message):
        """Something from the server."""

        def __init__(self, what: State | Happened | Lost) -> None:
            super().__init__()
            self.what = what

    class Answered(Message):
        """What a key's command came to."""

        def __init__(self, text: str, *, well: bool) -> None:
            super().__init__()
            self.text = text
            self.well = well

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.state = State()
        self.lost = ""
        self._client = client
        self._feed = Feed(client, self._came)

    def _came(self, what: State | Happened | Lost) -> None:
        self.post_message(self.Came(what))

    def compose(self) -> ComposeResult:
        yield Head(markup=False)
        yield Devices(markup=False)
        yield Models()
        yield Events()
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(Models).focus()
        self._show()
        self._feed.start()

    def on_unmount(self) -> None:
        self._feed.stop()

    def on_resize(self) -> None:
        self.call_after_refresh(self._show)

    def on_top_came(self, message: Came) -> None:
        what = message.what
        match what:
            case State():
                self.state, self.lost = what, ""
                self._show()
            case Lost():
                self.lost = f"no server answers at {self._client.url}, trying on"
                self._show()
            case Happened():
                if (main := self._main()) is not None:
                    main.query_one(Events).add(what.event)
                if what.kind == "PhaseChanged":
                    self._feed.look()

    def on_top_answered(self, message: Answered) -> None:
        self.notify(message.text, severity="information" if message.well else "error", markup=False)
        self._feed.look()

    def _main(self) -> Screen[None] | None:
        """The screen below all others; None where it has lost a part: at the end they are taken away one by one."""
        whole = bool(self.screen_stack) and len(self.screen_stack[0].query(", ".join(PARTS))) == len(PARTS)
        return self.screen_stack[0] if whole else None

    def _show(self) -> None:
        main = self._main()
        if main is None:
            return
        main.query_one(Head).show(self._client.url, self.state, self.lost)
        main.query_one(Devices).show(self.state)
        main.query_one(Models).show(self.state)
        for part in (main.query_one(Devices), main.query_one(Models)):
            part.set_class(bool(self.lost), "-lost")

    # --- the keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Over a log only its own keys are there."""
        return action not in ("start", "sleep", "stop", "log", "quit") or len(self.screen_stack) == 1

    def action_start(self) -> None:
        """Wake or start the model of the cursor."""
        self._command("start")

    def action_sleep(self, level: int) -> None:
        """Put it to sleep."""
        self._command("sleep", level=level)

    def action_stop(self) -> None:
        """End its engine."""
        self._command("stop")

    def action_log(self) -> None:
        """Follow its log."""
        model = self._chosen()
        if model is not None:
            self.push_screen(LogView(self._client, model))

    def _chosen(self) -> str | None:
        return self.screen_stack[0].query_one(Models).chosen

    def _command(self, verb: str, **more: object) -> None:
        model = self._chosen()
        if model is None:
            return

        short = model.rpartition("/")[2]

        def ask() -> None:
            try:
                answer = self._client.post(f"/control/{verb}", {"model": model, **more})
                level = f" at level {answer['level']}" if answer["phase"] == "asleep" else ""
                note = f" ({answer['note']})" if answer["note"] else ""
                self.post_message(self.Answered(f"{short}: {answer['phase']}{level}{note}", well=True))
            except (ServerDownError, AnswerError) as error:
                self.post_message(self.Answered(str(error), well=False))

        # A command may wait for requests in flight: leaving the screen does not wait for it.
        threading.Thread(target=ask, daemon=True).start()
