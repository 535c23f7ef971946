"""How an answer is printed: drawn as Markdown on a terminal, else as the plain text that it is."""

import sys
from typing import Protocol

from vllama.cli import render


class Printer(Protocol):
    """Takes an answer as it comes."""

    def thought(self, text: str) -> None: ...

    def text(self, piece: str) -> None: ...

    def end(self) -> None: ...


class Plain:
    """Text as it comes; what the model thinks is no part of the answer and goes nowhere in a pipe."""

    def __init__(self) -> None:
        self._last = ""
        self._thinking = False

    def thought(self, text: str) -> None:
        if sys.stdout.isatty():
            render.part(text)
            self._thinking = True

    def text(self, piece: str) -> None:
        if self._thinking:
            render.part("\n\n")
            self._thinking = False
        if piece:
            render.part(piece)
            self._last = piece

    def end(self) -> None:
        if self._thinking or (self._last and not self._last.endswith("\n")):
            render.part("\n")


class Silent:
    """For JSON, which is printed at the end."""

    def thought(self, text: str) -> None:
        del text

    def text(self, piece: str) -> None:
        del piece

    def end(self) -> None:
        return


def printer(*, markdown: bool) -> Printer:
    """Markdown is for a terminal alone."""
    if not (markdown and sys.stdout.isatty()):
        return Plain()
    from vllama.cli.markdown import MarkdownPrinter

    return MarkdownPrinter()
