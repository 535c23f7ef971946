"""What `start` tells of its events: each line is made from the event as the server really sends it."""

import pytest

from vllama.actors import Gap, Record, record_json
from vllama.actors.core import events as ev
from vllama.actors.core.messages import Phase
from vllama.cli import render

TOLD = [
    (ev.PhaseChanged(Phase.STARTING, 1.0), "starting"),
    (ev.LeaseRequested(1, 2**30, fresh=True), "asks for 1.0 GiB of memory"),
    (ev.LeaseHeld(1, 2**30, ("cpu",)), "holds 1.0 GiB on cpu"),
    (ev.EnginePlaced(1, 7, 33300, "/log", "fork", ""), "engine is pid 7 on port 33300, started by fork"),
    (
        ev.EnginePlaced(1, 7, 33300, "/log", "fork", "", 15.04),
        "engine is pid 7 on port 33300, started by fork after 15.0 s for the preload",
    ),
    (
        ev.EnginePlaced(1, 7, 33300, "/log", "exec", "no zygote"),
        "engine is pid 7 on port 33300, started by exec: no zygote",
    ),
    (ev.EngineRose(1, (("ready", 1.5), ("probe", 0.25))), "is up: ready 1.50 s, probe 0.25 s"),
    (ev.EngineMeasured(1, 2**29), "takes 512 MiB"),
    (ev.EngineFaulted(1, "start timeout"), "failed: start timeout"),
    (ev.EngineGone(1, -9, "oom", "", expected=False), "engine has ended with -9 (oom)"),
    (ev.EngineGone(1, -9, "", "", expected=False), "engine has ended with -9"),
    (ev.EngineGone(1, 0, "", "", expected=True), None),
    (ev.RestartNoted("port"), "is started once more (port)"),
    (ev.AskQueued(1), None),
    (ev.CommandAnswered(1, "awake"), None),
]


@pytest.mark.parametrize(("event", "line"), TOLD, ids=lambda value: type(value).__name__)
def test_an_event_is_told_in_one_line_or_not_at_all(event: ev.Event, line: str | None):
    data = record_json(Record(1, 1.0, "org/chat", ("Start", 0), event))
    assert data["kind"] == type(event).__name__
    assert render.progress(data["kind"], data) == line


def test_a_gap_is_told():
    assert render.progress("gap", Gap(1, 2)._asdict())


@pytest.mark.parametrize("kind", ["PhaseChanged", "EnginePlaced", "EngineRose", "RestartNoted", "Unknown"])
def test_an_event_of_another_version_is_not_told_and_breaks_nothing(kind: str):
    assert render.progress(kind, {}) is None
