"""What the benches share: a folder of their own, a table on the terminal, one JSON object of named figures."""

import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "bench" / "out"
sys.path.insert(0, str(ROOT / "tools"))

from models import CHAT, HUB  # noqa: E402 - the tools are scripts, found by the line above
from serving import Vllama, wait_until  # noqa: E402

__all__ = [
    "CHAT",
    "HUB",
    "OUT",
    "ROOT",
    "Vllama",
    "median",
    "publish",
    "server",
    "timed",
    "wait_until",
    "wait_zygote",
]

ZYGOTE_TIMEOUT_S = 180


@contextmanager
def server(name: str, cache: Path, **options) -> Iterator[Vllama]:
    """A running `vllama serve` that must end clean."""
    vllama = Vllama(ROOT / ".demo" / f"bench-{name}", cache, **options)
    vllama.log.unlink(missing_ok=True)
    try:
        vllama.start()
        yield vllama
        vllama.end()
    finally:
        vllama.kill()


def wait_zygote(vllama: Vllama, states: Sequence[str] = ("ready",)) -> str:
    """The zygote's state, once it is one of `states`."""
    seen = ""

    def there() -> bool:
        nonlocal seen
        seen = str(find(vllama.get("/control/info"), "zygote"))
        return seen in states or seen == "broken"

    wait_until(there, ZYGOTE_TIMEOUT_S)
    if seen not in states:
        raise SystemExit(f"the zygote is {seen or 'unknown'}, not {' or '.join(states)}{vllama.log_tail()}")
    return seen


def find(tree: object, key: str) -> object:
    """The first value under `key`, however deep; None when there is none."""
    if isinstance(tree, dict):
        if key in tree:
            return tree[key]
        return next((value for item in tree.values() if (value := find(item, key)) is not None), None)
    if isinstance(tree, list):
        return next((value for item in tree if (value := find(item, key)) is not None), None)
    return None


@contextmanager
def timed(into: list[float]) -> Iterator[None]:
    """Appends the seconds that the block took."""
    began = time.perf_counter()
    yield
    into.append(time.perf_counter() - began)


def median(values: Sequence[float], digits: int = 3) -> float:
    return round(statistics.median(values), digits)


def publish(name: str, columns: Mapping[str, Sequence[float]], figures: Mapping[str, float]) -> None:
    """One row a turn, then the figures; the figures also as bench/out/NAME.json."""
    heads = list(columns)
    print("turn  " + "  ".join(f"{head:>12}" for head in heads))
    for turn, row in enumerate(zip(*columns.values(), strict=True), 1):
        print(f"{turn:>4}  " + "  ".join(f"{value:>12.3f}" for value in row))
    width = max(map(len, figures))
    for figure, value in figures.items():
        print(f"{figure:<{width}}  {value:g}")
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.json"
    path.write_text(json.dumps(dict(figures), indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")
