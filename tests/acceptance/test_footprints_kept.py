"""A server remembers what its engines took: the next one asks for that, and lives without it."""

from collections.abc import Callable
from pathlib import Path

from serving import wait_until

from tests.api.caches import CHAT
from tests.api.rig import Rig

BOUND_S = 30.0


def asked_bytes(rig: Rig) -> int:
    (first, *_) = [event for event in rig.server.events() if event["kind"] == "LeaseRequested"]
    return int(first["bytes"])


def measured(rig: Rig) -> int:
    def found() -> list[int]:
        return [e["need"]["bytes"] for e in rig.server.events() if e["kind"] == "NeedCalibrated"]

    assert wait_until(lambda: bool(found()), BOUND_S)
    return found()[-1]


def again(rig: Rig) -> None:
    rig.server.end()
    rig.server.start()
    rig.http.base_url = rig.server.url


def test_the_next_server_asks_for_what_was_measured(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    assert rig.chat(CHAT).status_code == 200
    guessed, took = asked_bytes(rig), measured(rig)
    assert took != guessed
    info = rig.http.get("/control/info").json()
    file = Path(info["models_file"]["path"]).with_name("footprints.json")
    assert wait_until(file.exists, BOUND_S)
    again(rig)
    assert rig.chat(CHAT).status_code == 200
    assert asked_bytes(rig) == took
    file.write_text("broken")
    again(rig)
    notes = [event for event in rig.server.events() if event["kind"] == "HostNoted"]
    assert any(note["what"] == "footprints_ignored" and str(file) in note["detail"] for note in notes)
    assert rig.chat(CHAT).status_code == 200
    assert asked_bytes(rig) == guessed
