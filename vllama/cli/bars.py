"""Bars of files on their way. One of the modules that import rich, and only for a terminal."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Column

NARROW = 90  # columns below which the speed has no room


class Bars:
    """One bar a file, in the order in which they began. Use as a context manager."""

    def __init__(self) -> None:
        console = Console(markup=False, highlight=False)
        columns = [
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=20 if console.width < NARROW else 40),
            DownloadColumn(binary_units=True),
        ]
        if console.width >= NARROW:
            columns.append(TransferSpeedColumn())
        self._progress = Progress(*columns, console=console, expand=True)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def moved(self, file: str, total: int, completed: int) -> None:
        """So much of a file is there."""
        if file not in self._tasks:
            self._tasks[file] = self._progress.add_task(file, total=total)
        self._progress.update(self._tasks[file], completed=completed, total=total)

    def status(self, words: str) -> None:
        """What is done beside the files."""
        self._progress.console.print(words, style="dim")
