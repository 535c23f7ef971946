"""What an operator's command came to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The phase reached, and a note when it is not quite what was asked for."""

    model: str
    phase: str
    level: int
    log: str
    note: str
