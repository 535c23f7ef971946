"""What a person types: lines with an editor and a history, and texts of several lines between triple quotes."""

import os
import readline
from collections.abc import Sequence
from pathlib import Path

PROMPT, MORE = ">>> ", "... "
QUOTES = '"""'
HISTORY_LINES_MAX = 2000


class Keyboard:
    """One line or text at a time. The history file belongs to its owner alone: it has what was asked."""

    def __init__(self, history: Path, commands: Sequence[str]) -> None:
        self._history = history
        self._commands = sorted(commands)
        self._found: list[str] = []
        self._remember = True
        readline.set_history_length(HISTORY_LINES_MAX)
        readline.set_completer(self._complete)
        readline.set_completer_delims("")
        readline.parse_and_bind("tab: complete")
        try:
            readline.read_history_file(self._history)
        except OSError:
            readline.clear_history()
        self._known = readline.get_current_history_length()

    def read(self) -> str | None:
        """What was typed, in one piece; None at the end (Ctrl-D). Raises KeyboardInterrupt."""
        try:
            text = input(PROMPT)
            while _open(text):
                text += "\n" + input(MORE)
        except EOFError:
            return None
        return text

    def remember(self, wanted: bool) -> None:
        """Whether what is typed from now on goes into the history."""
        self._remember = wanted
        readline.set_auto_history(wanted)

    def close(self) -> None:
        """Add what is new to the file: two chats at once lose nothing."""
        new = readline.get_current_history_length() - self._known
        if new <= 0:
            return
        try:
            self._history.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._history, os.O_WRONLY | os.O_CREAT, 0o600))
            readline.append_history_file(new, self._history)
        except OSError:
            return  # a history that cannot be kept is no reason to fail

    def _complete(self, text: str, state: int) -> str | None:
        if state == 0:
            self._found = [name for name in self._commands if name.startswith(text)] if text else []
        return self._found[state] if state < len(self._found) else None


def _open(text: str) -> bool:
    """Whether the text has begun with triple quotes (behind a /command, too) that are not closed yet."""
    begins = text.lstrip().startswith(QUOTES) or (text.startswith("/") and QUOTES in text)
    return begins and text.count(QUOTES) % 2 == 1


def unquoted(text: str) -> str:
    """Without the triple quotes, or the plain ones, around it."""
    text = text.strip()
    for quotes in (QUOTES, '"'):
        if len(text) >= 2 * len(quotes) and text.startswith(quotes) and text.endswith(quotes):
            return text[len(quotes) : -len(quotes)].strip("\n")
    return text
