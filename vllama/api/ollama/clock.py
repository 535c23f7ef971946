"""The times of an answer, as Ollama tells them: whole nanoseconds."""

import time
from datetime import UTC, datetime


def stamp(at: float | None = None) -> str:
    """RFC 3339 with as many digits as Go writes."""
    at = time.time() if at is None else at
    whole = datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{int(at % 1 * 1e9):09d}Z"


class Clock:
    """Runs from the request's first byte. `load_s` is what it waited for its engine."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._first: float | None = None
        self.load_s = 0.0

    def token(self) -> None:
        """Something of the answer has come."""
        if self._first is None:
            self._first = time.perf_counter()

    def durations(self, prompt_tokens: int | None, tokens: int | None) -> dict[str, int]:
        """The fields of the last line; counts that are not known are left out."""
        now = time.perf_counter()
        first = now if self._first is None else self._first
        prompt_s = max(first - self._begun - self.load_s, 0.0)
        told = {"total_duration": _ns(now - self._begun), "load_duration": _ns(self.load_s)}
        if prompt_tokens is not None:
            told |= {"prompt_eval_count": prompt_tokens, "prompt_eval_duration": _ns(prompt_s)}
        if tokens is not None:
            told |= {"eval_count": tokens, "eval_duration": _ns(now - first)}
        return told


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
