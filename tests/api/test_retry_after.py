"""Retry-After on what may be tried again: from what was measured here, else a default; and the statuses that carry it."""

import signal
from threading import Thread

import pytest
from serving import wait_until

from tests.api.caches import CHAT
from tests.api.rig import BOUND_S, error_of
from vllama.api.answers import error_answer
from vllama.api.pace import Pace
from vllama.errors import HostUnavailable, NoMemory, QueueFull, ShuttingDown, StartFailed


def test_what_was_measured_is_what_is_said():
    pace = Pace()
    assert pace.retry_after_s(NoMemory("m", retry_after_s=10)) == 10  # nothing is known yet
    pace.rose(20)
    assert (pace.rise_s, pace.hold_s) == (20, None)
    assert pace.retry_after_s(NoMemory("m", retry_after_s=10)) == 20
    pace.held(5)
    pace.rose(30)
    assert pace.rise_s == pytest.approx(22)
    assert pace.retry_after_s(NoMemory("m")) == pytest.approx(27)
    assert pace.retry_after_s(ShuttingDown("m")) == pytest.approx(22)
    assert pace.retry_after_s(QueueFull("m")) == 5
    assert pace.retry_after_s(StartFailed("m", retry_after_s=3)) == 3


def test_it_is_never_nothing_and_never_for_ever():
    pace = Pace()
    pace.held(0.001)
    assert pace.retry_after_s(QueueFull("m")) == 1
    pace.rose(1e6)
    assert pace.retry_after_s(ShuttingDown("m")) == 120


@pytest.mark.parametrize("error", [QueueFull("m"), NoMemory("m"), ShuttingDown("m"), HostUnavailable("m")])
def test_429_and_503_always_have_it(error):
    assert int(error_answer(error).headers["retry-after"]) >= 1


def test_a_full_queue_is_429(make_rig):
    rig = make_rig("hang_at_start", env={"VLLAMA_QUEUE_MAX": "1"})
    waiting = Thread(target=rig.chat, args=(CHAT,))
    waiting.start()
    rig.until(CHAT, waiting=1)
    full = rig.chat(CHAT)
    assert (full.status_code, error_of(full)["code"]) == (429, "queue_full")
    assert int(full.headers["retry-after"]) >= 1
    assert CHAT in error_of(full)["message"]
    rig.faults()
    waiting.join()


def test_a_server_that_stops_says_when_from_how_long_its_engines_take(make_rig):
    rig = make_rig("slow_start_s=2.5")
    with rig.stream(CHAT, gate="a") as (answer, lines):
        assert answer.headers["x-vllama-state"] == "cold"
        rose_s = float(answer.headers["x-vllama-wait-ms"]) / 1000
        next(lines)
        rig.server.process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: rig.http.get("/health").status_code == 503, BOUND_S)
        refused = rig.chat(CHAT)
        assert (refused.status_code, error_of(refused)["code"]) == (503, "shutting_down")
        assert rose_s <= int(refused.headers["retry-after"]) <= rose_s + 1
