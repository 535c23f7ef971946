"""What passed through the data path, counted: one call a request, of a microsecond or two.

The cells are plain lists of numbers under plain keys, so that another process can hand its own over as they are (`cells`,
`add`). They are made into metrics only when somebody asks.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

# Seconds, from the request's head to the last byte of its answer.
DURATIONS_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
BUCKETS = len(DURATIONS_S) + 1
SECONDS, RECEIVED, SENT, CUT = range(BUCKETS, BUCKETS + 4)  # where they stand in a cell
HUNG_UP = 499  # the status of a request whose client left before its answer's end, in the words of nginx

Key = tuple[str, str, int]


class Traffic:
    """By model, route and status. `model` is a model's id, or "" for a request that named none that is known: so the number of
    cells is bounded by the models of the cache. `route` is the route's pattern, never a path as the client spelled it."""

    def __init__(self) -> None:
        self.cells: dict[Key, list[float]] = {}

    def count(
        self,
        model: str,
        route: str,
        status: int,
        seconds: float,
        received: int = 0,
        sent: int = 0,
        *,
        cut: bool = False,
    ) -> None:
        """A request is over. `received` and `sent` are bytes of bodies; `cut`: its answer had begun and broke off."""
        cell = self.cells.get((model, route, status))
        if cell is None:
            cell = self.cells[model, route, status] = [0.0] * (CUT + 1)
        cell[bisect_left(DURATIONS_S, seconds)] += 1
        cell[SECONDS] += seconds
        cell[RECEIVED] += received
        cell[SENT] += sent
        if cut:
            cell[CUT] += 1

    def add(self, cells: Iterable[tuple[Key, Sequence[float]]]) -> None:
        """What another process has counted."""
        for key, numbers in cells:
            cell = self.cells.get(key)
            if cell is None:
                self.cells[key] = list(numbers)
            else:
                self.cells[key] = [mine + more for mine, more in zip(cell, numbers, strict=True)]


def requests_of(cell: Sequence[float]) -> float:
    """How many requests a cell has counted."""
    return sum(cell[:BUCKETS])
