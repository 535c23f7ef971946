"""The rows that are run: every policy on each of these traces. They are shorter than a day so that all end in minutes."""

from collections.abc import Callable
from pathlib import Path

from bench.policy import traces
from bench.policy.traces import AZURE, Trace

SEED = 1  # of the table
HOUR = 3600.0

Make = Callable[[], Trace]


def rows(path: Path = AZURE, seed: int = SEED) -> dict[str, Make]:
    """Traces by a name of their own; `path` is what is cut into windows."""
    name = "azure" if path == AZURE else f"file-{path.name.split('.')[0]}"

    def cut(models: int, devices: int, duration_s: float, exponent: float = 1.0, times: int = 1) -> Make:
        return lambda: traces.windows(path, models, devices, duration_s, seed, exponent, times)

    windows = {
        f"{name}-2-1": cut(2, 1, HOUR),
        f"{name}-6-1": cut(6, 1, HOUR),
        f"{name}-8-1": cut(8, 1, HOUR),
        f"{name}-10-1": cut(10, 1, HOUR),
        f"{name}-10-2": cut(10, 2, HOUR / 4),
        f"{name}-20-4": cut(20, 4, HOUR / 4),
        f"{name}-50-8": cut(50, 8, HOUR / 4),
        f"{name}-50-8-flat": cut(50, 8, HOUR, 0.3, 2),
    }
    synthetic: dict[str, Make] = {
        "zipf-8-1": lambda: traces.popular(8, 1, 1.0, HOUR, seed),
        "zipf-10-1": lambda: traces.popular(10, 1, 1.0, HOUR, seed),
        "zipf-20-2": lambda: traces.popular(20, 2, 1.0, HOUR, seed),
        "zipf-50-8": lambda: traces.popular(50, 8, 4.0, HOUR, seed),
        "zipf-50-8-busy": lambda: traces.popular(50, 8, 20.0, HOUR / 2, seed),
        "agents-4-1": lambda: traces.agents(1, 0.2, HOUR, seed),
        "agents-16-4": lambda: traces.agents(4, 0.8, HOUR, seed, teams=4),
        "day-night-8-1": lambda: traces.day_and_night(8, 1, 1.0, 2 * HOUR, seed),
        "day-night-24-4": lambda: traces.day_and_night(24, 4, 4.0, 2 * HOUR, seed),
        "rounds-6-1": lambda: traces.rounds(6, "8B", 1, 10.0, HOUR, seed),
        "two-hot": lambda: traces.two_hot(5.5, HOUR / 2, seed),
        "scan-53-1": lambda: traces.scan(1, 50, 2 * HOUR, seed),
        "overload-6-1": lambda: traces.overload(6, 1, 24.0, HOUR / 2, seed),
    }
    return windows | synthetic


def million(seed: int = SEED) -> Trace:
    """A million requests: what one run may take at most ten minutes for."""
    return traces.popular(50, 8, 69.6, 4 * HOUR, seed)
