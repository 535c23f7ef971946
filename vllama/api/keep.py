"""What a request's own `keep_alive` or `ttl` means: how long its model stays awake after it, in seconds."""

import re
from collections.abc import Mapping

from vllama.api.body import KEEP_KEYS
from vllama.errors import BadRequest, cited

FOREVER = -1.0
LONGEST_S = 10 * 365 * 86400.0  # whoever says more means for ever

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def keep_of(said: Mapping[str, object]) -> float | None:
    """The seconds of the first of the two keys that says something; below 0: for ever. None: neither does. Raises BadRequest."""
    for key in KEEP_KEYS:
        if (value := said.get(key)) is not None:
            return seconds_of(key, value)
    return None


def seconds_of(key: str, value: object) -> float:
    """A number of seconds, or a duration as Go writes it ("5m", "1h30m", "-1s"). Raises BadRequest."""
    seconds: float | None = None
    if isinstance(value, str):
        seconds = _duration(value.strip())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = min(value, LONGEST_S * 2) if value >= 0 else FOREVER if value < 0 else None
    if seconds is None:
        raise BadRequest(
            f"`{key}` must be a number of seconds or a duration such as 5m or 1h30m (below 0: for ever), "
            f"not {cited(repr(value))}."
        )
    return FOREVER if seconds < 0 or seconds > LONGEST_S else seconds


def _duration(text: str) -> float | None:
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if re.fullmatch(
        r"[0-9]+\.?[0-9]*", rest
    ):  # Go wants a unit; clients that fill in a text field leave it out
        return sign * float(rest)
    parts = _PART.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        return None
    return sign * sum(float(number) * _UNITS_S[unit] for number, unit in parts)
