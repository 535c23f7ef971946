"""The parts of the screen: the line above, the devices, the models, the events."""

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from textual.binding import Binding
from textual.content import Content
from textual.widgets import DataTable, Log, Static

from vllama.cli.render import size, span
from vllama.cli.top.feed import State

RANKS = (
    "failed",
    "awake",
    "draining",
    "waking",
    "starting",
    "queued",
    "falling_asleep",
    "stopping",
    "asleep",
    "stopped",
)
COLOURS = {
    "failed": "$text-error",
    "awake": "$text-success",
    "draining": "$text-warning",
    "waking": "$text-warning",
    "starting": "$text-warning",
    "queued": "$text-warning",
    "falling_asleep": "$text-warning",
    "stopping": "$text-warning",
    "asleep": "$text-primary",
    "stopped": "$text-muted",
}
COLUMNS = (("STATE", 14), ("MEMORY", 9), ("RUN", 4), ("WAIT", 4), ("IDLE", 7))
EMPTY = "none yet: `vllama pull`"
MODEL_LEAST = 16
NARROW = 60  # columns below which bars have short names and no legend
ACTOR_MOST = 24
PADDING = 2  # of each cell
EVENTS_MAX = 500


LEGEND = Content.assemble(
    " " * 19,
    ("█", "$success"), (" awake  ", "$text-muted"),
    ("▓", "$primary"), (" asleep  ", "$text-muted"),
    ("▒", "$warning"), (" shared, returning  ", "$text-muted"),
    ("░", "$text-disabled"), (" free", "$text-muted"),
)  # fmt: skip


class Head(Static):
    """Which server, and how many of what."""

    def show(self, url: str, state: State, lost: str) -> None:
        """Draw it anew."""
        if lost:
            self.update(Content.assemble((" vllama ", "bold reverse"), (f" {lost}", "$text-error")))
            return
        phases = [view["phase"] for view in state.instances]
        running = sum(view["in_flight"] for view in state.instances)
        waiting = sum(view["waiting"] for view in state.instances)
        counts = f"{phases.count('awake')} awake, {phases.count('asleep')} asleep, {running} in flight, {waiting} waiting"
        copies = int(state.ram.get("copies_bytes") or 0)
        ram = f", {size(copies)} of RAM for level 1" if copies else ""
        self.update(
            Content.assemble((" vllama ", "bold reverse"), f" {url}  ", (f"{counts}{ram}", "$text-muted"))
        )


class Devices(Static):
    """A bar for each: what is awake, what sleepers keep, what is shared or returning, what is free."""

    def show(self, state: State) -> None:
        """Draw it anew."""
        self.state = state
        lines = [self._device(device) for device in state.devices]
        self.update(Content("\n").join([*lines, LEGEND] if lines and self.size.width >= NARROW else lines))

    state: State = State()

    def on_resize(self) -> None:
        self.show(self.state)

    def _device(self, device: Mapping[str, Any]) -> Content:
        total = max(int(device["total_bytes"]), 1)
        here = [view for view in self.state.instances if device["id"] in view["devices"]]
        awake = sum(view["memory_bytes"] for view in here if view["phase"] != "asleep")
        asleep = sum(view["residue_bytes"] for view in here if view["phase"] == "asleep")
        booked = max(int(device["booked_bytes"]), awake + asleep)
        other = (
            booked - awake - asleep + int(device["shared_bytes"] if booked < device["shared_bytes"] else 0)
        )
        name = device["id"] if device["kind"] == "cpu" else device["name"]
        named = 18 if self.size.width >= NARROW else 6
        label, figures = (
            f"{shortened(name, named):{named}} ",
            f" {size(booked) if booked else '0'} of {size(total)}",
        )
        width = max(self.size.width - len(label) - len(figures), 4)
        parts = _cells((awake, asleep, other), total, width)
        free = width - sum(parts)
        return Content.assemble(
            label,
            ("█" * parts[0], "$success"),
            ("▓" * parts[1], "$primary"),
            ("▒" * parts[2], "$warning"),
            ("░" * free, "$text-disabled"),
            (figures, "$text-muted"),
        )


def _cells(amounts: Sequence[int], total: int, width: int) -> list[int]:
    """How many cells each gets: what is there at all is seen, and together they fit."""
    cells = [min(max(round(amount / total * width), 1 if amount else 0), width) for amount in amounts]
    while sum(cells) > width:
        cells[cells.index(max(cells))] -= 1
    return cells


class Models(DataTable[Content]):
    """Every model, those that do something first. The cursor stays on its model, whatever moves."""

    BINDINGS: ClassVar[list[Binding | tuple[str, str] | tuple[str, str, str]]] = [
        Binding("enter", "app.log", show=False)
    ]

    def __init__(self) -> None:
        super().__init__(id="models", cursor_type="row", zebra_stripes=False)
        self._order: list[str] = []
        self._width = 0
        self._cells: dict[str, tuple[str, ...]] = {}

    @property
    def chosen(self) -> str | None:
        """The model that the cursor is on."""
        return self._order[self.cursor_row] if 0 <= self.cursor_row < len(self._order) else None

    def show(self, state: State) -> None:
        """Draw what has changed."""
        rows = rows_of(state)
        order, width = list(rows), self.size.width
        if order == self._order and width == self._width:
            for model, row in rows.items():
                for column, (new, old) in enumerate(zip(row, self._cells[model], strict=True)):
                    if new != old:
                        self.update_cell(model, str(column), self._cell(column, new, row[1]))
        else:
            self._rebuild(rows, order, width)
        self._cells = rows

    def _rebuild(self, rows: Mapping[str, tuple[str, ...]], order: list[str], width: int) -> None:
        chosen, top = self.chosen, self.scroll_offset.y
        self.clear(columns=True)
        fixed = sum(needed + PADDING for _, needed in COLUMNS)
        self._model_width = max(width - fixed - PADDING - 1, MODEL_LEAST)
        self.add_column("MODEL", width=self._model_width, key="0")
        for number, (name, needed) in enumerate(COLUMNS, 1):
            self.add_column(name, width=needed, key=str(number))
        for model, row in rows.items():
            self.add_row(*(self._cell(column, text, row[1]) for column, text in enumerate(row)), key=model)
        if not rows:
            self.add_row(Content.styled(EMPTY, "$text-muted"))
        self._order, self._width = order, width
        if chosen in order:
            self.move_cursor(row=order.index(chosen), scroll=False)
            self.scroll_to(y=top, animate=False)

    _model_width = MODEL_LEAST

    def _cell(self, column: int, text: str, phase: str) -> Content:
        if column == 0:
            return Content(shortened(text, self._model_width))
        if column == 1:
            return Content.styled(text, COLOURS.get(text.split()[0], ""))
        return Content.styled(text, "$text-muted" if phase == "stopped" else "")


def rows_of(state: State) -> dict[str, tuple[str, ...]]:
    """What each model's row says, in the order of the rows."""
    views = {view["model"]: view for view in state.instances}
    names = [*views, *(each["model"] for each in state.models if each["model"] not in views)]

    def rank(model: str) -> tuple[int, str]:
        phase = views[model]["phase"] if model in views else "stopped"
        return RANKS.index(phase) if phase in RANKS else len(RANKS), model.casefold()

    return {model: (model, *_row(views.get(model))) for model in sorted(names, key=rank)}


def _row(view: Mapping[str, Any] | None) -> tuple[str, ...]:
    if view is None:
        return "stopped", "-", "-", "-", "-"
    asleep = view["phase"] == "asleep"
    idle = view["last_used"] is not None and not view["in_flight"] and view["phase"] == "awake"
    return (
        f"asleep {view['level']}" if asleep else view["phase"],
        size(view["residue_bytes"] if asleep else view["memory_bytes"]),
        str(view["in_flight"] or "-"),
        str(view["waiting"] or "-"),
        span(time.time() - view["last_used"]) if idle else "-",
    )


def shortened(name: str, width: int) -> str:
    """A name that fits: what it loses it loses in the middle, for both its ends tell."""
    if len(name) <= width:
        return name
    end = (width - 1) // 2
    return f"{name[: width - 1 - end]}…{name[len(name) - end :]}"


class Events(Log):
    """What happens, the latest below."""

    def __init__(self) -> None:
        super().__init__(id="events", max_lines=EVENTS_MAX, highlight=False)
        self._empty = True

    def add(self, event: Mapping[str, Any]) -> None:
        """One more."""
        clock = dt.datetime.fromtimestamp(float(event.get("at", 0.0))).strftime("%H:%M:%S")
        actor, words = str(event.get("actor", "")), str(event.get("words") or event.get("kind", ""))
        who = (
            ""
            if actor in ("broker", "host", "system")
            else f"{shortened(actor.rpartition('/')[2], ACTOR_MOST)} "
        )
        self._empty = False
        self.write_line(f"{clock}  {who}{' '.join(words.split())}")
