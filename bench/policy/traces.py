"""What is asked for, and when: the Azure trace cut into windows, a model each, and a synthetic set. Seeded."""

import csv
import gzip
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from bench.policy.figures import CONCURRENT_MAX, SIZES, Size

AZURE = Path(__file__).with_name("azure_llm_2023_code.csv.gz")
COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")  # of a recording
RECORDED_MIN, RECORDED_MAX = 100, 20_000  # requests of a recording: more would take the table beyond its time
QUEUE_MAX = 32  # where there is too much to do: what waits longer than a client does is of no use to it
Arrival = tuple[float, int, int, int]  # seconds, model, context tokens, generated tokens


@dataclass
class Trace:
    """Requests in order, over models of these sizes; `warm` have been asked for before, the last one latest."""

    name: str
    sizes: list[Size]
    devices: int
    duration_s: float
    arrivals: list[Arrival]
    warm: list[int] = field(default_factory=list)
    queue_max: int = 1024  # vllama's default; of each model
    hot: list[int] = field(default_factory=list)  # of a scan: those that are to stay

    @property
    def load(self) -> float:
        work = sum(self.sizes[model].serve_s(context, out) for _, model, context, out in self.arrivals)
        return work / (self.devices * CONCURRENT_MAX * self.duration_s)


def made(
    name: str, sizes: Iterable[str], devices: int, duration_s: float, arrivals: Iterable[Arrival]
) -> Trace:
    """A trace all of whose models have been up before, the least popular first."""
    known = [SIZES[size] for size in sizes]
    asked = sorted(arrival for arrival in arrivals if arrival[0] <= duration_s)
    counts = [0] * len(known)
    for _, model, _, _ in asked:
        counts[model] += 1
    warm = sorted(range(len(known)), key=lambda model: (counts[model], model))
    return Trace(name, known, devices, duration_s, asked, warm)


def zipf(count: int, exponent: float = 1.0) -> list[float]:
    weights = [1 / (rank + 1) ** exponent for rank in range(count)]
    return [weight / sum(weights) for weight in weights]


def mixed(count: int) -> list[str]:
    """Sizes of so many models: mostly 8B, as people have them."""
    kinds = ("8B", "8B", "4B", "14B", "8B", "0.6B", "8B", "4B")
    return [kinds[index % len(kinds)] for index in range(count)]


# --- Azure ------------------------------------------------------------------------------------------------------------


@lru_cache
def recorded(path: Path) -> list[tuple[float, int, int]]:
    """Seconds since the first request, context tokens, generated tokens; of a long recording the first RECORDED_MAX."""
    rows: list[tuple[float, int, int]] = []
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if missing := set(COLUMNS) - set(reader.fieldnames or ()):
            raise SystemExit(
                f"{path} has no column {', '.join(sorted(missing))}; it is to have {', '.join(COLUMNS)}"
            )
        for row in reader:
            if len(rows) == RECORDED_MAX:
                break
            try:
                rows.append((when(row[COLUMNS[0]]), int(row[COLUMNS[1]]), int(row[COLUMNS[2]])))
            except (ValueError, TypeError) as error:
                raise SystemExit(f"{path}, line {reader.line_num}: {error}") from None
    if len(rows) < RECORDED_MIN:
        raise SystemExit(f"{path} has {len(rows)} requests: at least {RECORDED_MIN} are needed")
    rows.sort(key=lambda row: row[0])  # some recordings are ordered by when a request ended
    return [(at - rows[0][0], context, generated) for at, context, generated in rows]


def when(text: str) -> float:
    """A date and a time, with or without a zone (none: UTC)."""
    found = datetime.fromisoformat(text.strip())
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def windows(
    path: Path, models: int, devices: int, duration_s: float, seed: int, exponent: float = 1.0, times: int = 1
) -> Trace:
    """The recording cut into windows of different lengths, one a model, each stretched over the whole duration: arrivals stay
    as bursty as they were, at a rate of the model's own. `times`: so many windows one after the other."""
    rows, rng = recorded(path), random.Random(f"azure {seed}")
    sizes = mixed(models)
    arrivals: list[Arrival] = []
    for part in range(times):
        order = list(range(models))
        rng.shuffle(order)  # which window is whose
        shares = zipf(models, exponent)
        start = 0.0
        for model in order:
            first, start = round(start), start + shares[model] * len(rows)
            window = rows[first : round(start)]
            if not window:
                continue
            span = max(window[-1][0] - window[0][0], 1e-9)
            stretch = duration_s / times / span
            shift = duration_s / times * part
            until = shift + duration_s / times  # the last one of a window is not to come a hair after the end
            arrivals += [
                (min(shift + (at - window[0][0]) * stretch, until), model, ctx, out)
                for at, ctx, out in window
            ]
    return made("windows", sizes, devices, duration_s, arrivals)


# --- synthetic --------------------------------------------------------------------------------------------------------


def tokens(rng: random.Random) -> tuple[int, int]:
    return round(rng.lognormvariate(6.5, 0.8)) + 1, round(rng.lognormvariate(4.0, 0.8)) + 1


def bursts(rng: random.Random, rate: float, duration_s: float, pick: Callable[[], int]) -> list[Arrival]:
    """Bursts of a geometric number of requests to one model, three on average, half a second apart."""
    arrivals: list[Arrival] = []
    at = 0.0
    while (at := at + rng.expovariate(rate / 3)) < duration_s:
        model, when = pick(), at
        while True:
            arrivals.append((when, model, *tokens(rng)))
            if rng.random() < 1 / 3:
                break
            when += rng.expovariate(2.0)
    return arrivals


def popular(
    models: int, devices: int, rate: float, duration_s: float, seed: int, exponent: float = 1.0
) -> Trace:
    """Zipf popularity with bursts."""
    rng = random.Random(f"zipf {seed}")
    weights = zipf(models, exponent)
    pick = lambda: rng.choices(range(models), weights)[0]  # noqa: E731
    return made("zipf", mixed(models), devices, duration_s, bursts(rng, rate, duration_s, pick))


def agents(devices: int, rate: float, duration_s: float, seed: int, teams: int = 1) -> Trace:
    """Pipelines: embed, rerank, chat, each a second or two after the one before; each team has its own three models."""
    rng = random.Random(f"agents {seed}")
    sizes = [size for _ in range(teams) for size in ("8B", "8B", "14B", "14B")]
    arrivals: list[Arrival] = []
    for team in range(teams):
        at, base = 0.0, team * 4
        while (at := at + rng.expovariate(rate / teams)) < duration_s:
            chat = base + rng.choice((2, 2, 3))
            when = at
            for model, context, out in ((base, 400, 1), (base + 1, 3000, 1), (chat, 3000, 150)):
                arrivals.append((when, model, context, out))
                when += 1.0 + rng.random()
    return made("agents", sizes, devices, duration_s, arrivals)


def day_and_night(models: int, devices: int, rate: float, duration_s: float, seed: int) -> Trace:
    """Two halves of the models, each busy while the other is quiet; a day lasts half of the trace."""
    rng = random.Random(f"day {seed}")
    half = models // 2
    weights = zipf(half, 0.7)
    arrivals: list[Arrival] = []
    for side in range(2):
        pick = lambda side=side: side * half + rng.choices(range(half), weights)[0]  # noqa: E731
        for arrival in bursts(rng, rate, duration_s, pick):
            light = (1 + math.sin(4 * math.pi * arrival[0] / duration_s + side * math.pi)) / 2
            if rng.random() < light**2:
                arrivals.append(arrival)
    return made("day-night", mixed(models), devices, duration_s, arrivals)


def two_hot(rate: float, duration_s: float, seed: int) -> Trace:
    """Two models that do not fit together, each asked for all the time."""
    rng = random.Random(f"two {seed}")
    arrivals: list[Arrival] = []
    for model in range(2):
        at = 0.0
        while (at := at + rng.expovariate(rate / 2)) < duration_s:
            arrivals.append((at, model, *tokens(rng)))
    return made("two-hot", ["32B", "32B"], 1, duration_s, arrivals)


def overload(models: int, devices: int, rate: float, duration_s: float, seed: int) -> Trace:
    """More than the devices can serve, from models that are asked for alike."""
    rng = random.Random(f"overload {seed}")
    arrivals: list[Arrival] = []
    at = 0.0
    while (at := at + rng.expovariate(rate)) < duration_s:
        arrivals.append((at, rng.randrange(models), *tokens(rng)))
    trace = made("overload", ["8B"] * models, devices, duration_s, arrivals)
    trace.queue_max = QUEUE_MAX
    return trace


def rounds(count: int, size: str, devices: int, every_s: float, duration_s: float, seed: int) -> Trace:
    """One request after the other to each model in turn: the worst that can happen to LRU."""
    rng = random.Random(f"rounds {seed}")
    arrivals: list[Arrival] = []
    at, turn = 0.0, 0
    while (at := at + rng.uniform(0.5, 1.5) * every_s) < duration_s:
        arrivals.append((at, turn % count, *tokens(rng)))
        turn += 1
    return made("rounds", [size] * count, devices, duration_s, arrivals)


def scan(devices: int, one_offs: int, duration_s: float, seed: int) -> Trace:
    """Three models that are asked for again and again, and so many that are asked for once each."""
    rng = random.Random(f"scan {seed}")
    hot = [0, 1, 2]
    arrivals: list[Arrival] = []
    for model in hot:
        at = 0.0
        while (at := at + rng.expovariate(1 / 40)) < duration_s:
            arrivals.append((at, model, *tokens(rng)))
    for index in range(one_offs):
        at = (index + 0.5 + rng.uniform(-0.3, 0.3)) * duration_s / one_offs
        arrivals.append((at, len(hot) + index, *tokens(rng)))
    trace = made("scan", ["8B"] * 3 + ["4B"] * one_offs, devices, duration_s, arrivals)
    trace.warm, trace.hot = hot, hot
    return trace
