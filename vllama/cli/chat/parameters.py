"""What a chat may set of the engine's sampling: names, kinds, and what is wrong with a value."""

import math
from collections.abc import Callable, Mapping
from typing import Any


class ParameterError(Exception):
    """No such parameter, or no such value of it; the message says what there is."""


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _unescaped(text: str) -> str:
    """Letters beyond Latin-1 become escapes first: what decodes these would else read their bytes as letters."""
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape")


def _words(text: str) -> list[str]:
    """One stop text, or several between commas. Escapes stand for what cannot be typed."""
    parts = [_unescaped(part) if "\\" in part else part for part in text.split(",")]
    if not all(parts):
        raise ValueError(text)
    return parts


KINDS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "temperature": (_number, "a number: 0 always takes the likeliest token"),
    "top_p": (_number, "a number from 0 to 1"),
    "top_k": (int, "a whole number; -1 is all"),
    "min_p": (_number, "a number from 0 to 1"),
    "seed": (int, "a whole number"),
    "max_tokens": (int, "a whole number: how long an answer may be"),
    "presence_penalty": (_number, "a number from -2 to 2"),
    "frequency_penalty": (_number, "a number from -2 to 2"),
    "repetition_penalty": (_number, "a number above 0; 1 is none"),
    "stop": (_words, "texts that end an answer, with commas between them"),
}
# As Ollama calls them.
OTHER_NAMES = {"num_predict": "max_tokens", "repeat_penalty": "repetition_penalty"}
UNSET = ("default", "none")


def parameter(name: str, text: str) -> tuple[str, Any]:
    """The engine's name for it and its value; None takes it out. Raises ParameterError."""
    known = OTHER_NAMES.get(name, name).replace("-", "_")
    if known not in KINDS:
        raise ParameterError(f"there is no parameter {name}: there are {', '.join(KINDS)}")
    if text.strip().lower() in UNSET:
        return known, None
    read, what = KINDS[known]
    try:
        return known, read(text.strip())
    except ValueError as error:
        raise ParameterError(f"{name} {text}: must be {what}") from error
