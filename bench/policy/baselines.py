"""What others do, each by its source's rule, over the same cores and the same engines.

All move engines by the same means (vLLM's sleep at level 2, where their products kill the process): what is compared is
the rule. Sources: ollama/server/sched.go; llama-swap's collating queue (its issues 612 and 784); the fixed keep-alive of
OpenWhisk as "Serverless in the Wild" (ATC'20) and FaasCache (ASPLOS'21) tell it; Belady 1966.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from bench.policy.world import Edge, World
from vllama.actors.core.broker_state import BrokerState, Lease
from vllama.actors.core.cost import Cost
from vllama.actors.core.eviction import Holder
from vllama.actors.core.policy import Lru

if TYPE_CHECKING:
    from bench.policy.traces import Trace

OLLAMA_KEEP_ALIVE_S = 300.0
OLLAMA_QUEUE_MAX = 512
OPENWHISK_KEEP_ALIVE_S = 600.0


class Ollama(Lru):
    """One load at a time, first come first; who has the shortest keep-alive goes (all have the same: by name), an idle one if
    there is one; else that one is let run out, at once."""

    def victims(
        self,
        s: BrokerState,
        lease: Lease,
        idle: Sequence[Holder],
        asleep: Sequence[Holder],
        busy: Sequence[Holder],
        short: int,
        now: float,
    ) -> list[Holder]:
        return sorted(idle, key=lambda h: h.model)[:1] or sorted(asleep, key=lambda h: h.model)[:1]

    def busy_victim(self, s: BrokerState, lease: Lease, busy: Sequence[Holder], now: float) -> Holder | None:
        return min(busy, key=lambda h: h.model, default=None)


class OllamaEdge(Edge):
    """One queue for all models: whoever is at its head and has to be loaded holds up all behind, also for models that are up."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.queue: deque[int] = deque()
        self.loading: int | None = None

    def arrive(self, ask: int) -> None:
        if len(self.queue) >= OLLAMA_QUEUE_MAX:
            self.world.open += 1
            self.world.refused(ask)
            return
        self.queue.append(ask)
        self._go_on()

    def settled(self, ask: int) -> None:
        if ask == self.loading:
            self.loading = None
            self._go_on()

    def _go_on(self) -> None:
        while self.queue and self.loading is None:
            ask = self.queue.popleft()
            if not self.world.awake(ask):
                self.loading = ask
            self.world.acquire(ask)


class LlamaSwap(Lru):
    """First come, and all requests for a model together: it goes only when nobody asks for it any more."""

    def busy_victim(self, s: BrokerState, lease: Lease, busy: Sequence[Holder], now: float) -> Holder | None:
        return None


@dataclass
class Future:
    """When each model is asked for next: what only a simulation knows."""

    trace: "Trace"
    base: float = 0.0  # when the trace begins, on the clock of the actors

    def __post_init__(self) -> None:
        self.times: dict[str, list[float]] = {f"m{i:02}": [] for i in range(len(self.trace.sizes))}
        for at, model, _, _ in self.trace.arrivals:
            self.times[f"m{model:02}"].append(at)

    def in_s(self, model: str, now: float) -> float:
        """In so many seconds; infinity: never again."""
        times, at = self.times[model], now - self.base
        index = bisect_right(times, at)
        return times[index] - at if index < len(times) else inf


@dataclass
class Clairvoyant(Lru):
    """Belady's: who is needed last goes, and all else is plain LRU's. Like LRU it knows of no cost, size or level."""

    future: Future

    def victims(
        self,
        s: BrokerState,
        lease: Lease,
        idle: Sequence[Holder],
        asleep: Sequence[Holder],
        busy: Sequence[Holder],
        short: int,
        now: float,
    ) -> list[Holder]:
        return self._last(idle, short, now) or self._last(asleep, short, now)

    def busy_victim(self, s: BrokerState, lease: Lease, busy: Sequence[Holder], now: float) -> Holder | None:
        return max(busy, key=lambda h: (self.future.in_s(h.model, now), h.model), default=None)

    def _last(self, holders: Sequence[Holder], short: int, now: float) -> list[Holder]:
        chosen: list[Holder] = []
        for holder in sorted(holders, key=lambda h: (-self.future.in_s(h.model, now), h.model)):
            if short <= 0:
                break
            chosen.append(holder)
            short -= holder.bytes
        return chosen


@dataclass
class Foresight(Cost):
    """`cost` told when each model is asked for next: what there would be to gain by guessing that better."""

    future: Future

    def rate(self, s: BrokerState, model: str, now: float) -> float:
        """A visit in so many seconds as it will be."""
        return 1 / max(self.future.in_s(model, now), 0.01)
