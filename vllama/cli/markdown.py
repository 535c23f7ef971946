"""An answer in Markdown, drawn as it comes: what is complete is printed for good, what is not yet is drawn anew.

Beside render.py the only module that imports rich, and only for a terminal.
"""

from collections.abc import Iterator
from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Heading, Markdown, MarkdownElement
from rich.segment import Segment
from rich.text import Text

FRAMES_A_SECOND = 12
CODE_THEME = "ansi_dark"  # the terminal's own colours
FENCES = ("```", "~~~")


class _Heading(Heading):
    """On the left, without a box."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        self.text.stylize("bold underline" if self.tag == "h1" else "bold")
        yield self.text


class _Markdown(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "heading_open": _Heading}


class _Block:
    """A block without the blank lines that rich lays around it; of one that still grows the last lines that fit on the screen."""

    def __init__(self, text: str, *, grows: bool = False) -> None:
        self._text = text
        self._grows = grows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        markdown = _Markdown(self._text.strip("\n"), code_theme=CODE_THEME, hyperlinks=False)
        lines = console.render_lines(markdown, options, pad=False)
        while lines and _is_blank(lines[0]):
            del lines[0]
        while lines and _is_blank(lines[-1]):
            del lines[-1]
        for line in lines[-max(console.size.height - 3, 1) :] if self._grows else lines:
            yield from line
            yield Segment.line()


def _is_blank(line: list[Segment]) -> bool:
    return not any(segment.text.strip() for segment in line)


class MarkdownPrinter:
    """Give it pieces of text as they come, and end it; also when the answer was cut off."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._rest = ""
        self._printed = False
        self._thinking = False
        self._live: Live | None = None

    def thought(self, text: str) -> None:
        """What the model thinks before it answers, in grey as it is."""
        if not self._thinking:
            self._thinking = True
            text = text.lstrip()
        self._console.print(Text(text, style="dim"), end="", soft_wrap=True)

    def text(self, piece: str) -> None:
        """A part of the answer."""
        if self._thinking:
            self._thinking = False
            self._console.print("\n")
        *whole, self._rest = blocks(self._rest + piece)
        for block in whole:
            self._print(block)
        if self._rest.strip():
            if self._live is None:
                self._separate()
                self._live = Live(
                    console=self._console,
                    transient=True,
                    refresh_per_second=FRAMES_A_SECOND,
                    redirect_stderr=False,
                    redirect_stdout=False,
                )
                self._live.start()
            self._live.update(_Block(self._rest, grows=True))

    def end(self) -> None:
        """What was not complete is all there is."""
        if self._rest.strip():
            self._print(self._rest)
        elif self._thinking:
            self._console.print()
        self._rest = ""

    def _print(self, block: str) -> None:
        """For good. The blank line above it is there already if it was being drawn."""
        if self._live is None:
            self._separate()
        else:
            self._live.stop()
            self._live = None
        self._console.print(_Block(block))
        self._printed = True

    def _separate(self) -> None:
        if self._printed:
            self._console.print()


def blocks(text: str) -> list[str]:
    """The blocks that are complete, and the rest. A block ends at a blank line outside of a fence, once the next line has
    begun and is not indented: that one may belong to a list's item above it."""
    return list(_blocks(text))


def _blocks(text: str) -> Iterator[str]:
    fence, block, blank = "", "", False
    for line in text.splitlines(keepends=True):
        bare = line.strip()
        if not fence and blank and block.strip() and bare and not line[0].isspace():
            yield block
            block = ""
        if bare.startswith(FENCES) and (not fence or (bare.startswith(fence) and not bare.strip(fence[0]))):
            fence = "" if fence else bare[: len(bare) - len(bare.lstrip(bare[0]))]
        blank = not bare
        block += line
    yield block
