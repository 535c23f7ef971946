"""What the screen shows, as it comes from the server: its state each second, its events at once, and again after a restart.

Two threads that never touch the screen: all they have goes through `tell`.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vllama.cli.client import AnswerError, Client, EventReader, ServerDownError

EVERY_S = 1.0
MODELS_EVERY = 5  # looks at the state between two at the cache
PAST_EVENTS = 3000  # how far back the first look goes, of which most are none that one is told
KINDS = (
    "PhaseChanged", "EnginePlaced", "EngineRose", "EngineSlept", "EngineMeasured", "EngineFaulted", "EngineGone",
    "FailureCounted", "RestartNoted", "LeaseRequested", "LeaseDenied", "RoomSought", "EvictionOrdered", "EvictionCancelled",
    "DescentSet", "CommandTaken", "HostNoted", "AskQueued", "AskRefused", "UnreturnedChanged", "SleepModeSet",
    "InstanceConfigured",
)  # fmt: skip


@dataclass(frozen=True)
class State:
    """The server as it is now: `ps`, and the models of its cache."""

    instances: tuple[Mapping[str, Any], ...] = ()
    devices: tuple[Mapping[str, Any], ...] = ()
    ram: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Happened:
    """One event, as the server sends it."""

    kind: str
    event: Mapping[str, Any]


@dataclass(frozen=True)
class Lost:
    """The server does not answer; it is asked again and again."""

    why: str


class Feed:
    """Begins with `start`, ends with `stop`, from whatever thread."""

    def __init__(self, client: Client, tell: Callable[[State | Happened | Lost], None]) -> None:
        self._client = client
        self._tell = tell
        self._over = threading.Event()
        self._look = threading.Event()
        self._up = threading.Event()
        self._events: EventReader | None = None
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self._watch_state, self._watch_events)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def look(self) -> None:
        """Something has changed: do not wait for the next second."""
        self._look.set()

    def stop(self) -> None:
        """Nothing is told any more when this returns."""
        self._over.set()
        self._look.set()
        self._up.set()
        if self._events is not None:
            self._events.hang_up()
        for thread in self._threads:
            thread.join()

    def _watch_state(self) -> None:
        looks, models = 0, ()
        while not self._over.is_set():
            self._look.clear()
            try:
                if looks % MODELS_EVERY == 0:
                    models = tuple(self._client.get("/control/models")["models"])
                ps = self._client.get("/control/ps")
                looks += 1
                state = State(tuple(ps["instances"]), tuple(ps["devices"]), ps.get("ram", {}), models)
                self._say(state)
                self._up.set()
            except (ServerDownError, AnswerError) as error:
                looks = 0
                self._up.clear()
                self._say(Lost(str(error)))
            self._look.wait(EVERY_S)

    def _watch_events(self) -> None:
        """Each event once: after a broken stream from the last one on, from the beginning of a server that is new."""
        last = -1
        while not self._over.is_set():
            self._up.wait()
            try:
                seq = int(self._client.get("/control/info")["seq"])
                since = max(seq - PAST_EVENTS, 0) if last < 0 else last if seq >= last else 0
                query = "&".join((f"since={since}", "words=1", *(f"kind={kind}" for kind in KINDS)))
                self._events = self._client.all_events(query)
                last = since
                if not self._over.is_set():
                    for each in self._events:
                        if each.kind != "gap":
                            last = max(last, int(each.data["seq"]))
                            self._say(Happened(each.kind, each.data))
                self._events.close()
            except (ServerDownError, AnswerError):
                self._up.clear()
            self._over.wait(EVERY_S)

    def _say(self, what: State | Happened | Lost) -> None:
        if not self._over.is_set():
            self._tell(what)
