"""What the system knows one worker to hold: its batches, and the asks that it has admitted on them.

Pure. It turns what a worker reports into messages to instances, holds the worker to what it was given (LedgerBroken), and
knows what must be told in its place when it is dead.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vllama.actors.core.batches import BatchBack, BatchMessage, Report


class LedgerBroken(Exception):
    """A worker reports what it cannot have done with what it was given."""


@dataclass(slots=True)
class Lent:
    """One batch that is out."""

    number: int
    model: str
    count: int
    used: int = 0


Told = list[tuple[str, BatchMessage]]  # to which instance, what; in order


class Ledger:
    """One worker's account."""

    def __init__(self) -> None:
        self._lent: dict[int, Lent] = {}
        self._unused: dict[str, int] = {}  # by model
        self.out: dict[int, str] = {}  # admitted on a batch and not ended: the model of each ask

    def lend(self, number: int, model: str, count: int) -> None:
        self._lent[number] = Lent(number, model, count)
        self._unused[model] = self._unused.get(model, 0) + count

    def unused(self, model: str) -> int:
        """How many requests of this model the worker may still admit by itself."""
        return self._unused.get(model, 0)

    def holds(self, number: int) -> bool:
        return number in self._lent

    def model_of(self, number: int) -> str:
        """Whose batch this is; "" when the worker does not hold it."""
        held = self._lent.get(number)
        return held.model if held is not None else ""

    def batches(self) -> tuple[int, ...]:
        return tuple(self._lent)

    def spans(self, batches: Iterable[int]) -> tuple[tuple[int, int], ...]:
        """Of these batches, those that the worker holds: the first ask and how many."""
        return tuple((held.number, held.count) for number in batches if (held := self._lent.get(number)))

    def report(self, used: Sequence[tuple[int, Sequence[str]]], ended: Iterable[int]) -> Told:
        """What the instances must hear. A batch that is used up is back with its last ticket."""
        admitted: dict[str, list[tuple[int, str]]] = {}
        over: dict[str, list[int]] = {}
        back: Told = []
        for number, requests in used:
            held = self._lent.get(number)
            if held is None or held.used + len(requests) > held.count:
                raise LedgerBroken(f"{len(requests)} requests on batch {number}: {held}")
            first = number + held.used
            held.used += len(requests)
            self._unused[held.model] -= len(requests)
            asks = list(enumerate(requests, first))
            admitted.setdefault(held.model, []).extend(asks)
            for ask, _ in asks:
                self.out[ask] = held.model
            if held.used == held.count:
                del self._lent[number]
                back.append((held.model, BatchBack(number)))
        for ask in ended:
            model = self.out.pop(ask, None)
            if model is None:
                raise LedgerBroken(f"ask {ask} ends, and was not admitted on a batch")
            over.setdefault(model, []).append(ask)
        told: Told = [
            (model, Report(tuple(admitted.get(model, ())), tuple(over.get(model, ()))))
            for model in dict.fromkeys((*admitted, *over))
        ]
        return told + back

    def returned(self, number: int) -> Told:
        """The worker gives a batch back; it has reported all that it did with it. One that is back already is none."""
        held = self._lent.pop(number, None)
        if held is None:
            return []
        self._unused[held.model] -= held.count - held.used
        return [(held.model, BatchBack(number))]

    def died(self) -> Told:
        """All that the worker held is given back in its place."""
        told = self.report((), tuple(self.out))
        for number in self.batches():
            told += self.returned(number)
        return told
