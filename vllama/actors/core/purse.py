"""What a worker process holds of tickets: batches to admit on by itself, and what of them the system is still to hear of.

Pure. Laws: a ticket is taken once; nothing is taken of a batch that is recalled; what was taken is in a report before its batch
goes back.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Batch:
    """The asks `number` to `number + count - 1`, on the engine of `run` behind `port`."""

    number: int
    model: str
    run: int
    port: int
    count: int
    used: int = 0
    untold: list[str] = field(default_factory=list)  # request ids of what was taken and is not reported yet


class Purse:
    """One worker's batches, by number and by model."""

    def __init__(self) -> None:
        self._batches: dict[int, Batch] = {}
        self._by_model: dict[str, deque[Batch]] = {}
        self._touched: dict[int, Batch] = {}  # those with something untold
        self._ended: list[int] = []

    def put(self, batch: Batch) -> None:
        """The system has handed a batch out."""
        self._batches[batch.number] = batch
        self._by_model.setdefault(batch.model, deque()).append(batch)

    def take(self, model: str, request: str) -> tuple[int, Batch] | None:
        """The next ticket for this model; None: ask the system."""
        held = self._by_model.get(model)
        if not held:
            return None
        batch = held[0]
        ask = batch.number + batch.used
        batch.used += 1
        batch.untold.append(request)
        self._touched[batch.number] = batch
        if batch.used == batch.count:
            held.popleft()
            del self._batches[batch.number]  # the system knows by the count that it is back
        return ask, batch

    def end(self, ask: int) -> None:
        """A request is over, whichever way it was admitted."""
        self._ended.append(ask)

    def recall(self, number: int) -> None:
        """Nothing is taken of this batch any more. What was taken stays out until it ends."""
        batch = self._batches.pop(number, None)
        if batch is not None:
            self._keep(batch.model, lambda other: other is not batch)

    def drop(self, model: str, run: int) -> None:
        """The engine of this run takes no connection: no more is admitted on it. Its batches are recalled in time."""
        self._keep(model, lambda batch: batch.run != run)

    def _keep(self, model: str, wanted: Callable[[Batch], bool]) -> None:
        self._by_model[model] = deque(filter(wanted, self._by_model.get(model, ())))

    @property
    def untold(self) -> bool:
        return bool(self._touched or self._ended)

    def report(self) -> tuple[list[tuple[int, list[str]]], list[int]]:
        """What the system has not heard of: by batch the ids of what was taken since, then what has ended."""
        used = []
        for batch in self._touched.values():
            used.append((batch.number, batch.untold))
            batch.untold = []
        ended, self._ended = self._ended, []
        self._touched.clear()
        return used, ended

    def can_admit(self, model: str, run: int) -> bool:
        """Something of this run could be taken."""
        return any(batch.run == run for batch in self._by_model.get(model, ()))

    def held(self) -> tuple[int, ...]:
        """The batches that have tickets left."""
        return tuple(self._batches)
