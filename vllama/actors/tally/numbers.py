"""What is counted. Keys begin with the model, which the catalog knows: their number is bounded by it."""

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple, Self

from vllama.actors.tally.histogram import Histogram

if TYPE_CHECKING:
    from vllama.actors.core.messages import Phase


class Rise(NamedTuple):
    """A start or a wake that came to its end, by the journal's clock."""

    how: str
    began: float
    ended: float


NAMES = (
    "starts", "wakes", "sleeps", "descents", "evictions", "caused", "cancelled", "failures", "refusals", "leases", "warm",
    "waits", "rises", "falls", "phase_s", "phases", "last_rise", "asked", "going", "faulted",
)  # fmt: skip  # a compiled object does not tell them


class Numbers:
    """Counters only grow; `asked`, `phases` and `going` are what is under way."""

    def __init__(self) -> None:
        self.starts: Counter[str] = Counter()  # begun, by model
        self.wakes: Counter[str] = Counter()
        self.sleeps: Counter[tuple[str, int]] = Counter()  # reached, by model and level
        self.descents: Counter[tuple[str, str]] = Counter()  # by model and why
        self.evictions: Counter[tuple[str, str]] = Counter()  # by victim and what it was doing
        self.caused: Counter[str] = Counter()  # evictions, by who wanted the memory
        self.cancelled: Counter[str] = Counter()
        self.failures: Counter[tuple[str, str]] = Counter()  # by model and what failed
        self.refusals: Counter[tuple[str, str]] = Counter()  # by model and code
        self.leases: Counter[str] = Counter()  # by what became of the request for memory
        self.warm: Counter[str] = Counter()  # admitted without a wait, by model: the warm path's only number
        self.waits: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)  # by model and outcome
        self.rises: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)  # by model and how
        self.falls: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.phase_s: defaultdict[tuple[str, str], float] = defaultdict(float)  # of phases that are over
        self.phases: dict[str, tuple[Phase, float]] = {}  # of now, and since when
        self.last_rise: dict[str, Rise] = {}
        self.asked: dict[int, tuple[str, float]] = {}  # who waits, for which model, since when
        self.going: dict[str, str] = {}  # who is on its way down, and why
        self.faulted: set[str] = set()  # whose engine is being killed for a failure that is counted already

    def copy(self) -> Self:
        """As they are now: for a reader in another thread."""
        twin = type(self)()
        for name in NAMES:
            value = getattr(self, name)
            held = value.copy()
            if value and isinstance(value, defaultdict) and isinstance(next(iter(value.values())), Histogram):
                held = {key: histogram.copy() for key, histogram in value.items()}
            setattr(twin, name, held)
        return twin
