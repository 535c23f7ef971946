"""How long things take here, measured: what Retry-After is made of."""

from vllama.errors import NoMemory, QueueFull, ShuttingDown, VllamaError

NEWEST_WEIGHT = 0.2
LEAST_S, MOST_S = 1.0, 120.0


class Pace:
    """Running means of how long an engine takes to rise and how long a request holds it; None while nothing was measured."""

    def __init__(self) -> None:
        self.rise_s: float | None = None
        self.hold_s: float | None = None

    def rose(self, wait_s: float) -> None:
        """A request had to wait so long for a start or a wake."""
        self.rise_s = _mean(self.rise_s, wait_s)

    def held(self, hold_s: float) -> None:
        """A request held its engine for so long."""
        self.hold_s = _mean(self.hold_s, hold_s)

    def retry_after_s(self, error: VllamaError) -> float | None:
        """When to come again: memory comes free when a request ends, and then another engine must rise; a place in a
        queue when one ends; a server that stops is followed by one whose engines must rise."""
        parts: tuple[float | None, ...]
        match error:
            case NoMemory():
                parts = (self.hold_s, self.rise_s)
            case QueueFull():
                parts = (self.hold_s,)
            case ShuttingDown():
                parts = (self.rise_s,)
            case _:
                return error.retry_after_s
        known = [part for part in parts if part is not None]
        return min(max(sum(known), LEAST_S), MOST_S) if known else error.retry_after_s


def _mean(before: float | None, newest: float) -> float:
    return newest if before is None else before + NEWEST_WEIGHT * (newest - before)
