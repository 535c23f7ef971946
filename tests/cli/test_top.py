"""`vllama top` by its keys and its screen, against a real server with fake engines."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from serving import Vllama, free_port
from textual.pilot import Pilot
from textual.widgets import Log

from tests.api.caches import CHAT, EMBED, make_cache
from tests.api.rig import Rig
from tests.cli.terminal import Terminal
from vllama.cli.client import Client
from vllama.cli.top.app import Top
from vllama.cli.top.feed import Happened, Lost, State
from vllama.cli.top.logview import LogView
from vllama.cli.top.parts import Devices, Events, Head, Models, _cells, rows_of, shortened

BOUND_S = 60.0


def watched(
    url: str, body: Callable[[Top, Pilot[None]], Coroutine[Any, Any, None]], size: tuple[int, int] = (80, 24)
):
    """Runs the app on a screen of this size against the server, and what is done with it."""

    async def run() -> None:
        top = Top(Client(url))
        async with top.run_test(size=size) as pilot:
            await body(top, pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], happened: Callable[[], object], what: str = "it") -> None:
    deadline = time.monotonic() + BOUND_S
    while not happened():
        assert time.monotonic() < deadline, f"{what} did not happen"
        await pilot.pause(0.02)


def row(top: Top, model: str) -> list[str]:
    """What the table shows of a model; [] when it has no such row."""
    table = top.screen_stack[0].query_one(Models)
    if model not in table._order:
        return []
    return [str(cell) for cell in table.get_row(model)]


def text(top: Top, kind: type) -> str:
    return str(top.screen_stack[0].query_one(kind).render())


def lines(log: Log) -> str:
    return "\n".join(map(str, log.lines))


async def choose(pilot: Pilot[None], top: Top, model: str) -> None:
    table = top.screen_stack[0].query_one(Models)
    await until(pilot, lambda: row(top, model), f"a row of {model}")
    table.move_cursor(row=table._order.index(model))
    await until(pilot, lambda: table.chosen == model, f"the cursor on {model}")


def test_keys_wake_put_to_sleep_and_stop_the_model_of_the_cursor(rig: Rig):
    async def body(top: Top, pilot: Pilot[None]) -> None:
        await choose(pilot, top, CHAT)
        assert row(top, CHAT)[1] == "stopped"
        await pilot.press("w")
        await until(pilot, lambda: row(top, CHAT)[1] == "awake", "awake")
        assert top.query_one(Models).chosen == CHAT  # it has moved up, and the cursor with it
        await until(pilot, lambda: "MiB" in row(top, CHAT)[2], "its memory")
        assert "1 awake" in text(top, Head)
        await pilot.press("1")
        await until(pilot, lambda: row(top, CHAT)[1] == "asleep 1", "asleep")
        await pilot.press("w")
        await until(pilot, lambda: row(top, CHAT)[1] == "awake", "awake again")
        await pilot.press("s")
        await until(pilot, lambda: row(top, CHAT)[1] == "asleep 2", "asleep deeper")
        await pilot.press("x")
        await until(pilot, lambda: row(top, CHAT)[1] == "stopped", "stopped")
        told = lines(top.query_one(Events))
        assert "chat is awake" in told
        assert "chat is to be put to sleep at level 1: by command" in told

    watched(rig.server.url, body)


def test_what_runs_and_waits_is_counted_and_a_log_is_followed(rig: Rig):
    async def body(top: Top, pilot: Pilot[None]) -> None:
        with rig.stream(CHAT, gate="g") as (_, stream):
            next(stream)
            await until(pilot, lambda: row(top, CHAT)[1:4:2] == ["awake", "1"], "in flight")
            await until(pilot, lambda: "1 in flight" in text(top, Head), "counted")
            await choose(pilot, top, CHAT)
            await pilot.press("l")
            await until(pilot, lambda: isinstance(top.screen, LogView), "the log")
            log = top.screen.query_one(Log)
            await until(pilot, lambda: "Application startup complete" in lines(log), "its lines")
            assert top.check_action("stop", ()) is False
            rig.let(CHAT, "g")
            assert list(stream)[-1] == "[DONE]"
            await until(pilot, lambda: "chat/completions" in lines(log), "what is written now")
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(top.screen, LogView), "the way back")
        await choose(pilot, top, EMBED)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(top.screen, LogView), "the log that is not there")
        await until(pilot, lambda: "has no log yet" in lines(top.screen.query_one(Log)), "said so")

    watched(rig.server.url, body)


def test_a_command_that_is_refused_is_said(make_rig: Callable[..., Rig]):
    rig = make_rig("die_at_start")

    async def body(top: Top, pilot: Pilot[None]) -> None:
        await choose(pilot, top, CHAT)
        await pilot.press("w")
        await until(pilot, lambda: any(note.severity == "error" for note in top._notifications), "an error")
        (note,) = [note for note in top._notifications if note.severity == "error"]
        assert "Engine core initialization failed" in note.message

    watched(rig.server.url, body)


def test_what_comes_while_the_screen_is_taken_down_is_not_shown(rig: Rig):
    async def body(top: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: row(top, CHAT), "a row")
        await top.query_one(Head).remove()
        for what in (State(), Lost("it ended"), Happened("Noted", {})):
            top.post_message(Top.Came(what))
        await pilot.pause()

    watched(rig.server.url, body)


def test_it_survives_a_restart_of_the_server(vllama_server: Callable[..., Vllama], tmp_path: Path):
    cache = make_cache(tmp_path / "hub")
    first = vllama_server(cache, fake=True)
    assert first.cli("start", CHAT).returncode == 0

    async def body(top: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: row(top, CHAT)[1:2] == ["awake"], "awake")
        await asyncio.to_thread(first.end)
        await until(pilot, lambda: "no server answers" in text(top, Head), "the loss")
        assert top.query_one(Models).has_class("-lost")
        await asyncio.to_thread(first.start)
        await until(pilot, lambda: "0 awake" in text(top, Head), "the new server")
        assert not top.query_one(Models).has_class("-lost")
        await until(pilot, lambda: row(top, CHAT)[1:2] == ["stopped"], "its state")
        before = lines(top.query_one(Events)).count("chat is awake")
        await choose(pilot, top, CHAT)
        await pilot.press("w")
        await until(pilot, lambda: row(top, CHAT)[1] == "awake", "awake on the new one")
        await until(pilot, lambda: lines(top.query_one(Events)).count("chat is awake") > before, "its events")

    watched(first.url, body)


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (200, 50)], ids=str)
def test_it_fits_narrow_and_wide_screens_and_long_names(rig: Rig, size: tuple[int, int]):
    async def body(top: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: row(top, CHAT), "the models")
        table, devices = top.query_one(Models), top.query_one(Devices)
        assert table.virtual_size.width <= max(size[0], 16 + 50)
        assert all(len(line) <= size[0] for line in text(top, Devices).splitlines()[:1]), text(top, Devices)
        assert devices.size.height >= 1
        await pilot.resize_terminal(size[0] + 10, size[1] + 2)
        await until(pilot, lambda: table._width == table.size.width, "the new width")

    watched(rig.server.url, body, size)


def test_without_a_terminal_or_a_server_it_says_so():
    command = [sys.executable, "-m", "vllama.cli.main", "top", "--server", "http://127.0.0.1:9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_on_a_terminal_it_begins_and_ends(rig: Rig):
    with Terminal("top", env=rig.server.environ, columns=80, rows=24) as terminal:
        terminal.until("tiny/chat")
        terminal.type("q")
        assert terminal.wait() == 0
    with Terminal(
        "top", env=rig.server.environ | {"VLLAMA_URL": f"http://127.0.0.1:{free_port()}"}
    ) as terminal:
        assert terminal.wait() == 3
        assert "no vllama server answers" in terminal.text


# --- the parts


def view(model: str, phase: str, **more: object) -> dict[str, object]:
    return {
        "model": model, "phase": phase, "level": 0, "devices": ["cpu"], "memory_bytes": 2**30, "residue_bytes": 2**20,
        "in_flight": 0, "waiting": 0, "last_used": None, **more,
    }  # fmt: skip


def test_rows_are_in_the_order_of_what_happens():
    state = State(
        instances=(
            view("b", "asleep", level=1),
            view("A", "awake", in_flight=2),
            view("c", "failed"),
            view("d", "unheard"),
        ),
        models=({"model": "e"}, {"model": "A"}),
    )
    rows = rows_of(state)
    assert list(rows) == ["c", "A", "b", "e", "d"]
    assert rows["A"] == ("A", "awake", "1.0 GiB", "2", "-", "-")
    assert rows["b"][1:3] == ("asleep 1", "1 MiB")


@pytest.mark.parametrize(
    ("name", "width", "short"), [("abc", 3, "abc"), ("abcdefgh", 5, "ab…gh"), ("abcdefgh", 6, "abc…gh")]
)
def test_a_long_name_loses_its_middle(name: str, width: int, short: str):
    assert shortened(name, width) == short


@pytest.mark.parametrize(
    ("amounts", "total", "cells"),
    [
        ((0, 0, 0), 10, [0, 0, 0]),
        ((1, 0, 0), 1000, [1, 0, 0]),
        ((10, 0, 0), 10, [10, 0, 0]),
        ((10, 1, 1), 10, [8, 1, 1]),
    ],
)
def test_a_bar_shows_all_there_is_and_no_more_than_fits(
    amounts: tuple[int, ...], total: int, cells: list[int]
):
    assert _cells(amounts, total, 10) == cells
