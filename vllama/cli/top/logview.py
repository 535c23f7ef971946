"""The log of a model's engine, as it is written, over the whole screen."""

import threading
from typing import ClassVar
from urllib.parse import quote

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, Log, Static

from vllama.cli.client import AnswerError, Client, LineReader, ServerDownError

LINES = 500
LINES_MAX = 5000


class LogView(Screen[None]):
    """Follows until it is left."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,l,q", "app.pop_screen", "back"),
    ]

    class Came(Message):
        """A line of the log, or why there is none."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, client: Client, model: str) -> None:
        super().__init__()
        self.model = model
        self._client = client
        self._reader: LineReader | None = None
        self._left = False
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def compose(self) -> ComposeResult:
        yield Static(f" log of {self.model}", id="log-head", markup=False)
        yield Log(id="log", max_lines=LINES_MAX, highlight=False)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(Log).focus()
        self._thread.start()

    def on_unmount(self) -> None:
        self._left = True
        if self._reader is not None:
            self._reader.hang_up()
        self._thread.join()

    def on_log_view_came(self, message: Came) -> None:
        self.query_one(Log).write_line(message.text)

    def _follow(self) -> None:
        path = f"/control/logs?model={quote(self.model, safe='')}&lines={LINES}&follow=1"
        try:
            self._reader = self._client.lines(path)
        except (ServerDownError, AnswerError) as error:
            self._say(str(error))
            return
        if not self._left:
            for line in self._reader.lines():
                self._say(line.decode(errors="replace").rstrip("\r\n"))
        self._reader.close()
        self._say("--- the server has ended this log ---")

    def _say(self, text: str) -> None:
        if not self._left:
            self.post_message(self.Came(text))
