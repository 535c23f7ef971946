"""The wait for a model, as it goes: "waking Qwen3-8B, 2 s of about 3". From the journal's stream, drawn while one waits.

How long it may take is what it took before: in this server's journal, else what an earlier chat has noted in a file that may be
deleted at any time.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vllama.cli import render
from vllama.cli.client import AnswerError, Client, EventReader, ServerDownError

TICK_S = 0.1
SHOWN_AFTER_S = 0.3
COMING_UP = ("starting", "waking")
KINDS = "&kind=PhaseChanged&kind=EngineSlept&since=0"
WORDS = {
    "starting": "starting {}",
    "waking": "waking {}",
    "queued": "{} waits for memory",
    "draining": "{} finishes what runs before it sleeps, then it wakes again",
    "falling_asleep": "{} falls asleep, then it wakes again",
    "stopping": "{} is being stopped, then it starts again",
    "awake": "{} reads",
}


class Ways:
    """Where a model is on its way up, and what each way has taken: a fold of its events."""

    def __init__(self, known: Mapping[str, float]) -> None:
        self.took_s = dict(known)
        self.phase = ""
        self.since = 0.0
        self._level = 0

    def take(self, kind: str, event: Mapping[str, Any]) -> None:
        """One event."""
        if kind == "EngineSlept":
            self._level = int(event.get("level", 0))
        elif kind == "PhaseChanged":
            at = float(event.get("at", 0.0))
            if event.get("to") == "awake" and self.phase in COMING_UP:
                self.took_s[self.way] = round(at - self.since, 3)
            self.phase, self.since = str(event.get("to", "")), at

    @property
    def way(self) -> str:
        """A wake from level 1 is another way than one from level 2."""
        return f"{self.phase} {self._level}" if self.phase == "waking" else self.phase

    def told(self, model: str, begun: float, now: float) -> str:
        """The wait in words, `begun` is when one began to ask."""
        name = model.rpartition("/")[2] or model
        if (words := WORDS.get(self.phase)) is None:
            return f"waiting for {name}, {_seconds(now - begun)}"
        since = begun if self.phase == "awake" else self.since
        line = f"{words.format(name)}, {_seconds(now - since)}"
        about = self.took_s.get(self.way) if self.phase in COMING_UP else None
        return line if about is None else f"{line} of about {max(1, round(about))}"


def _seconds(seconds: float) -> str:
    return f"{max(0, int(seconds))} s"


@contextmanager
def told_of_wait(client: Client, model: str, notes: Path) -> Iterator[threading.Event]:
    """While the body runs, the wait is drawn on one line of stderr, until the event that it gives is set. Where stderr is no
    terminal nothing is drawn, and nothing asked for."""
    over = threading.Event()
    if not render.has_status():
        yield over
        return
    known = _noted(notes)
    ways = Ways(known.get(model, {}))
    events = _opened(client, model)
    reader = threading.Thread(target=_read, args=(events, ways), daemon=True)
    drawer = threading.Thread(target=_draw, args=(ways, model, over), daemon=True)
    reader.start()
    drawer.start()
    try:
        yield over
    finally:
        over.set()
        drawer.join()
        if events is not None:
            events.hang_up()
        reader.join()
        if events is not None:
            events.close()
        if ways.took_s != known.get(model, {}):
            _note(notes, known | {model: ways.took_s})


def _opened(client: Client, model: str) -> EventReader | None:
    try:
        return client.events(model, KINDS)
    except (
        ServerDownError,
        AnswerError,
    ):  # a server may keep its debug routes shut: the wait is told without them
        return None


def _read(events: EventReader | None, ways: Ways) -> None:
    for event in events or ():
        ways.take(event.kind, event.data)


def _draw(ways: Ways, model: str, over: threading.Event) -> None:
    begun = time.time()
    if over.wait(SHOWN_AFTER_S):
        return
    shown = ""
    while not over.is_set():
        if (words := ways.told(model, begun, time.time())) != shown:
            shown = words
            render.status(words)
        over.wait(TICK_S)
    render.status("")


def _noted(path: Path) -> dict[str, dict[str, float]]:
    """What earlier chats have noted; what is wrong with the file costs its figures."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        return {
            str(model): {str(way): float(took) for way, took in ways.items()}
            for model, ways in json.loads(path.read_text(encoding="utf-8")).items()
        }
    return {}


def _note(path: Path, known: Mapping[str, Mapping[str, float]]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
