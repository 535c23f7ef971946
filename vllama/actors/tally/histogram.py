"""A histogram as plain numbers: one addition and one bisection for each value."""

from bisect import bisect_left
from collections.abc import Sequence

# Seconds. From what an awake engine answers in to what a big model takes to load.
WAITS_S = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Histogram:
    """How many values were at most each bound, as Prometheus wants them, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = WAITS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # each by itself; the last is for what is above all bounds
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add(self, counts: Sequence[int], total: float) -> None:
        """Values that were counted elsewhere, by the same bounds."""
        for index, count in enumerate(counts):
            self.counts[index] += count
        self.sum += total

    def copy(self) -> "Histogram":
        twin = Histogram(self.bounds)
        twin.counts, twin.sum = list(self.counts), self.sum
        return twin

    @property
    def count(self) -> int:
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative: (bound, how many values are at most that)."""
        rows: list[tuple[str, float]] = []
        so_far = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            so_far += count
            rows.append((bound, float(so_far)))
        return rows
