"""Our own figures: which there are, under which names, and where each comes from.

A scene is taken on the event loop, where nothing moves meanwhile: copies, and nothing computed. The samples are made of it in a
thread. Names follow Prometheus' rules: base units (seconds, bytes), `_total` for what only grows, no kind of metric in a name.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from vllama.actors import Histogram, System, books
from vllama.api.metrics.scrape import Page
from vllama.api.metrics.text import Family, sample
from vllama.api.traffic import BUCKETS, CUT, DURATIONS_S, RECEIVED, SECONDS, SENT, Key, Traffic, requests_of

PHASES = (
    "stopped", "queued", "starting", "waking", "awake", "draining", "falling_asleep", "asleep", "stopping", "failed",
)  # fmt: skip

Labels = tuple[str, ...]
Row = tuple[Labels, float | Histogram]


class Scene:
    """Everything at one moment."""

    def __init__(self, system: System, traffic: Traffic, pages: Sequence[Page] = ()) -> None:
        self.now, self.seq = system.journal.now(), system.journal.seq
        self.tally = system.journal.tally.copy()
        self.views = system.ps()
        self.devices = system.devices()
        self.books = books(system.journal.states.broker())
        self.cells: list[tuple[Key, Sequence[float]]] = [
            (key, tuple(cell)) for key, cell in traffic.cells.items()
        ]
        self.pages = pages


@dataclass(frozen=True)
class Figure:
    """One metric: `take` has its samples."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels
    help: str
    take: Callable[[Scene], Iterable[Row]]

    def family(self, scene: Scene) -> Family:
        """Its samples, written."""
        family = Family(self.name, self.kind, self.help)
        for values, number in self.take(scene):
            labels = dict(zip(self.labels, values, strict=True))
            if isinstance(number, Histogram):
                for bound, count in number.buckets():
                    family.lines.append(sample(f"{self.name}_bucket", {**labels, "le": bound}, count))
                family.lines.append(sample(f"{self.name}_count", labels, float(number.count)))
                family.lines.append(sample(f"{self.name}_sum", labels, number.sum))
            else:
                family.lines.append(sample(self.name, labels, number))
        return family


def families(scene: Scene) -> Iterator[Family]:
    """All of them, those too that have no sample yet."""
    return (figure.family(scene) for group in GROUPS.values() for figure in group)


def _rows(numbers: Mapping[Any, Any]) -> list[Row]:
    """One row for each key."""
    return [
        (
            tuple(map(str, key)) if isinstance(key, tuple) else (str(key),),
            number if isinstance(number, Histogram) else float(number),
        )
        for key, number in numbers.items()
    ]


def _split(rows: Iterable[tuple[Any, ...]]) -> list[Row]:
    """Rows of (labels..., number)."""
    return [(tuple(map(str, labels)), float(number)) for *labels, number in rows]


def _durations(scene: Scene) -> Iterable[Row]:
    found: dict[Labels, Histogram] = {}
    for (model, route, _status), cell in scene.cells:
        histogram = found.setdefault((model, route), Histogram(DURATIONS_S))
        histogram.add([int(count) for count in cell[:BUCKETS]], cell[SECONDS])
    return found.items()


def _summed(place: int) -> Callable[[Scene], Iterable[Row]]:
    def take(scene: Scene) -> Iterable[Row]:
        found: dict[Labels, float] = {}
        for (model, route, _status), cell in scene.cells:
            found[model, route] = found.get((model, route), 0.0) + cell[place]
        return found.items()

    return take


def _requests(cells: Iterable[tuple[Key, Sequence[float]]]) -> list[Row]:
    return [((model, route, str(status)), requests_of(cell)) for (model, route, status), cell in cells]


def _oldest(scene: Scene) -> list[Row]:
    since = scene.books.oldest_wait_since
    return [((), 0.0 if since is None else max(scene.now - since, 0.0))]


MODEL: Labels = ("model",)

SERVER = (
    Figure("vllama_build_info", "gauge", ("version",), "Always 1; the version is its label.",
           lambda _: [((metadata.version("vllama"),), 1.0)]),
    Figure("vllama_journal_records_total", "counter", (), "Records written to the journal.", lambda s: [((), float(s.seq))]),
)  # fmt: skip
LIFE = (
    Figure("vllama_model_phase", "gauge", ("model", "phase"),
           "1 for the phase that the model's instance is in, 0 for the others.",
           lambda s: [((view.model, phase), float(view.phase == phase)) for view in s.views for phase in PHASES]),
    Figure("vllama_model_phase_seconds_total", "counter", ("model", "phase"),
           "Time that the model's instance has spent in each phase.", lambda s: _rows(s.tally.phase_seconds(s.now))),
    Figure("vllama_model_serving_requests", "gauge", MODEL, "Requests that hold the model's engine now.",
           lambda s: [((view.model,), float(view.in_flight)) for view in s.views]),
    Figure("vllama_model_waiting_requests", "gauge", MODEL, "Requests that wait for the model's engine now.",
           lambda s: [((view.model,), float(view.waiting)) for view in s.views]),
    Figure("vllama_model_last_used_timestamp_seconds", "gauge", MODEL, "When the model's latest request began or ended.",
           lambda s: [((view.model,), view.last_used) for view in s.views if view.last_used is not None]),
    Figure("vllama_model_starts_total", "counter", MODEL, "Starts that were begun.", lambda s: _rows(s.tally.starts)),
    Figure("vllama_model_wakes_total", "counter", MODEL, "Wakes that were begun.", lambda s: _rows(s.tally.wakes)),
    Figure("vllama_model_sleeps_total", "counter", ("model", "level"), "Sleeps that were reached, by level.",
           lambda s: _rows(s.tally.sleeps)),
    Figure("vllama_model_rise_seconds", "histogram", ("model", "how"),
           "What a start (cold) or a wake took that ended awake.", lambda s: _rows(s.tally.rises)),
    Figure("vllama_model_fall_seconds", "histogram", MODEL, "What an engine's going to sleep took, the drain before it left out.",
           lambda s: _rows(s.tally.falls)),
    Figure("vllama_model_descents_total", "counter", ("model", "reason"),
           "Times that the model was sent down: evict, command, idle, residue (it slept and was stopped), pin.",
           lambda s: _rows(s.tally.descents)),
    Figure("vllama_model_failures_total", "counter", ("model", "during"),
           "Failures, by what the engine was doing: start, wake, sleep, stop, serving; bug is one of vllama's own.",
           lambda s: _rows(s.tally.failures)),
    Figure("vllama_evictions_total", "counter", ("model", "reason"),
           "Evictions that were ordered, by victim and by what it was doing: idle, busy (its grace was over), asleep.",
           lambda s: _rows(s.tally.evictions)),
    Figure("vllama_evictions_caused_total", "counter", MODEL,
           "Evictions that were ordered, by the model that wanted the memory.", lambda s: _rows(s.tally.caused)),
    Figure("vllama_evictions_cancelled_total", "counter", MODEL,
           "Evictions that were called off because nobody waited any more.", lambda s: _rows(s.tally.cancelled)),
    Figure("vllama_wait_seconds", "histogram", ("model", "outcome"),
           "How long requests waited for an engine, by what came of it: warm, wake, cold, refused, left.",
           lambda s: _rows(s.tally.all_waits())),
    Figure("vllama_refusals_total", "counter", ("model", "code"), "Requests that were refused an engine, by the error's code.",
           lambda s: _rows(s.tally.refusals)),
)  # fmt: skip
MEMORY = (
    Figure("vllama_device_info", "gauge", ("device", "device_kind", "name"), "Always 1; what the device is.",
           lambda s: [((d["id"], d["kind"], d["name"]), 1.0) for d in s.devices]),
    Figure("vllama_device_memory_limit_bytes", "gauge", ("device",), "What vllama may use of the device.",
           lambda s: _split(s.books.totals)),
    Figure("vllama_device_memory_bytes", "gauge", ("device", "kind"),
           "What is booked on the device: awake, residue (of sleepers), returning (not yet measured to be back), unreturned, "
           "shared (of all engines), free. Together: the limit.", lambda s: _split(s.books.devices)),
    Figure("vllama_device_memory_measured_free_bytes", "gauge", ("device",),
           "What was free on the device when it was last measured.", lambda s: _split(s.books.measured_free)),
    Figure("vllama_device_memory_unattributed_bytes", "gauge", ("device",),
           "What was measured as used by nobody that vllama knows.", lambda s: _split(s.books.unattributed)),
    Figure("vllama_model_memory_bytes", "gauge", ("model", "device", "kind"),
           "What is booked for the model on the device: awake, residue, returning, unreturned.",
           lambda s: _split(s.books.models)),
    Figure("vllama_host_copies_bytes", "gauge", MODEL, "The host's RAM that the model's weights take since it slept at level 1.",
           lambda s: _split(s.books.copies)),
    Figure("vllama_host_copies_limit_bytes", "gauge", (), "The host's RAM that such weights may take.",
           lambda s: [((), float(s.books.copies_max))]),
    Figure("vllama_leases", "gauge", ("state",), "Leases of memory, by state; waiting is the length of the queue.",
           lambda s: _split(s.books.leases)),
    Figure("vllama_lease_outcomes_total", "counter", ("outcome",),
           "Requests of engines for memory: asked, granted, refused, withdrawn; and returned, when it was back.",
           lambda s: _rows(s.tally.leases)),
    Figure("vllama_lease_oldest_wait_seconds", "gauge", (),
           "How long the first in the queue for memory has waited; 0 when it is empty.", _oldest),
    Figure("vllama_slots", "gauge", ("state",), "Turns to go up or down, by state.", lambda s: _split(s.books.slots)),
)  # fmt: skip
PROXY = (
    Figure("vllama_http_requests_total", "counter", ("model", "route", "status"),
           "Requests of the data path that are over, by the answer's status; 499: the client left first. No model: they named "
           "none that is known.", lambda s: _requests(s.cells)),
    Figure("vllama_http_request_duration_seconds", "histogram", ("model", "route"),
           "From a request's head to the last byte of its answer.", _durations),
    Figure("vllama_http_received_bytes_total", "counter", ("model", "route"), "Bytes of requests' bodies.", _summed(RECEIVED)),
    Figure("vllama_http_sent_bytes_total", "counter", ("model", "route"), "Bytes of answers' bodies.", _summed(SENT)),
    Figure("vllama_http_cut_answers_total", "counter", ("model", "route"), "Answers that had begun and broke off.", _summed(CUT)),
)  # fmt: skip
SCRAPES = (
    Figure("vllama_engine_scrape_success", "gauge", MODEL, "Whether an awake engine gave its own figures.",
           lambda s: [((page.model,), float(page.text is not None)) for page in s.pages]),
    Figure("vllama_engine_scrape_duration_seconds", "gauge", MODEL, "What asking an awake engine for its own figures took.",
           lambda s: [((page.model,), page.seconds) for page in s.pages]),
)  # fmt: skip
GROUPS: Mapping[str, tuple[Figure, ...]] = {
    "The server": SERVER,
    "Models": LIFE,
    "Memory": MEMORY,
    "Requests": PROXY,
    "The engines' own figures": SCRAPES,
}
