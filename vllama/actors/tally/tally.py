"""The numbers, and how each record of the journal changes them."""

from typing import TYPE_CHECKING

from vllama.actors.core.messages import Phase
from vllama.actors.tally import instance, room
from vllama.actors.tally.histogram import Histogram
from vllama.actors.tally.numbers import Numbers

if TYPE_CHECKING:
    from vllama.actors.record import Record

_RULES = {**instance.RULES, **room.RULES}


class Tally(Numbers):
    """Told of each record as it is written."""

    def push(self, record: "Record") -> None:
        """Take one record in: total, as every fold is."""
        _seq, at, actor, _cause, event = record
        if (rule := _RULES.get(type(event))) is not None:
            rule(self, actor, event, at)

    def all_waits(self) -> dict[tuple[str, str], Histogram]:
        """By model and outcome, those included that did not wait at all."""
        waits = dict(self.waits)
        for model, count in self.warm.items():
            waits[model, "warm"] = histogram = Histogram()
            histogram.counts[0] = count
        return waits

    def phase_seconds(self, now: float) -> dict[tuple[str, str], float]:
        """By model and phase: for how long, the phase of now included."""
        seconds = dict(self.phase_s)
        for model, (phase, since) in self.phases.items():
            key = model, phase.value
            seconds[key] = seconds.get(key, 0.0) + max(now - since, 0.0)
        return seconds

    def awake(self) -> frozenset[str]:
        """The models that admit requests now."""
        return frozenset(model for model, (phase, _) in self.phases.items() if phase is Phase.AWAKE)
