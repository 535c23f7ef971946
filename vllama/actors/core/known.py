"""What the broker has learned of each model: what its moves take, and how often it is asked for. Measured, never configured."""

from dataclasses import dataclass, field, replace

from vllama.actors.core import broker_events as ev
from vllama.actors.core.events import Event
from vllama.actors.core.messages import Level, SlotKind

WEIGHT = 0.3  # of the newest measurement in a moving average


@dataclass(slots=True)
class Known:
    """One model. `seconds` by move: start, wake-1, wake-2, sleep-1 (`pin`: its first), sleep-2, stop."""

    seconds: dict[str, float] = field(default_factory=dict)
    rises: int = 0  # how often it has come up
    up_at: float = 0.0  # when it came up last
    visits: float = 0.0
    visited_at: float = 0.0
    weights_bytes: int = 0
    copy_bytes: int = 0  # of the host's RAM, that its first sleep at level 1 would take
    residue_bytes: int = 0  # the latest sleep's
    levels: tuple[Level, ...] = ()

    def copy(self) -> "Known":
        return replace(self, seconds=dict(self.seconds))

    def learn(self, move: str, took_s: float) -> None:
        old = self.seconds.get(move, took_s)
        self.seconds[move] = old + WEIGHT * (took_s - old)


def move_of(kind: SlotKind, level: Level, *, copied: bool) -> str:
    """What the turn was for."""
    if kind == "down":
        return "stop" if level == 3 else "pin" if copied else f"sleep-{level}"
    return "start" if level == 3 else f"wake-{level}"


def learn(known: dict[str, Known], kind: SlotKind | None, event: Event) -> None:
    """What an event of the broker's teaches. `kind`: of the slot that it frees."""
    match event:
        case ev.SlotFreed(model, _, copied, took_s, level, at) if kind is not None and took_s > 0:
            found = known.setdefault(model, Known())
            found.learn(move_of(kind, level, copied=copied), took_s)
            if kind != "down":
                found.rises, found.up_at = found.rises + 1, at
        case ev.LeaseQueued():
            found = known.setdefault(event.model, Known())
            found.visits, found.visited_at, found.weights_bytes = event.visits, event.at, event.weights_bytes
        case ev.OfferAnswered() if event.in_flight >= 0:
            found = known.setdefault(event.model, Known())
            found.visits, found.visited_at = event.visits, event.last_used
            found.levels, found.copy_bytes = event.levels, event.copy_bytes
        case ev.LeaseReturning() if event.residue_bytes:
            found = known.setdefault(event.model, Known())
            found.visits, found.visited_at = event.visits, event.last_used
            found.residue_bytes = event.residue_bytes


LEARNING = (ev.SlotFreed, ev.LeaseQueued, ev.OfferAnswered, ev.LeaseReturning)
