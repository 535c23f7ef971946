"""What is wrong with a command line, in words for who typed it."""

import re
from typing import Any

_NUMBER = re.compile(
    r"Invalid value for .*?: '?(?P<given>.*?)'? is not (a valid (int|float)( range)?|in the range .*)\.?",
    re.DOTALL,
)


def words(error: Any, called: str) -> str:
    """The parser's error in one line that says where to look. `called` is the command, where the error does not say."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else called
    text = " ".join((_of_number(error) or error.format_message()).split()).rstrip(".")
    return f"{text}; `{command} --help` lists what can be said"


def _of_number(error: Any) -> str:
    """What a number must be, where the parser says "not a valid int range"; "" for any other error."""
    option = getattr(error, "param", None)
    found = _NUMBER.fullmatch(error.format_message())
    if option is None or found is None:
        return ""
    least, most = getattr(option.type, "min", None), getattr(option.type, "max", None)
    bounds = f" from {least} to {most}" if None not in (least, most) else ""
    bounds = bounds or (f" of at least {least}" if least is not None else "")
    bounds = bounds or (f" of at most {most}" if most is not None else "")
    number = "a whole number" if option.type.name.startswith("int") else "a number"
    return f"{max(option.opts, key=len)} must be {number}{bounds} (got {found['given']!r})"
