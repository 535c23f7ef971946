"""A look at the whole plan does no more with ten times as many models: counted in function calls, not in time."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from vllama.actors.core import messages as msg
from vllama.actors.core.broker import decide, evolve
from vllama.actors.core.broker_state import BrokerState

GIB = 2**30
DEVICES = 4
SLACK = 1.1  # bisecting a longer list, and so on


def turn(s: BrokerState, message: Any, now: float) -> None:
    """One message, and what the broker tells itself because of it."""
    events, effects = decide(s, message, now)
    for event in events:
        evolve(s, event)
    for effect in effects:
        if type(effect).__name__ == "TellSelf":
            turn(s, effect.message, now)


def measure(s: BrokerState, used: dict[str, int], now: float) -> None:
    per = used.items()
    found = tuple(
        msg.DeviceMeasured(device, 80 * GIB - sum(used.values()), 0, tuple(per)) for device in s.devices
    )
    turn(s, msg.Measured(s.epoch, found), now)


def crowded(models: int) -> BrokerState:
    """Each device holds one busy model and a share of sleepers; everybody else waits, a part of them for one device."""
    s, now = BrokerState(), 1000.0
    for number in range(DEVICES):
        turn(s, msg.DeviceFound(f"gpu{number}", "cuda", 80 * GIB), now)
    for number in range(models // 2):  # these sleep
        name, where = f"sleeper{number}", (f"gpu{number % DEVICES}",)
        turn(s, msg.RequestLease(name, 1, 2**20, 1, where, True), now)
        measure(s, {}, now)
        turn(s, msg.ReturnLease(name, 1, 2**16, now), now)
        measure(s, {}, now)
    for device in s.devices:
        turn(s, msg.RequestLease(f"busy on {device}", 1, 60 * GIB, 1, (device,), True), now)
        measure(s, {}, now)
    for number in range(models // 2):  # and these wait
        where = (f"gpu{number % DEVICES}",) if number % 3 == 0 else ()
        turn(s, msg.RequestLease(f"waiter{number}", 1, (30 + number % 40) * GIB, GIB, where, True), now)
    measure(s, {}, now)
    for device in s.devices:
        turn(s, msg.Candidate(f"busy on {device}", 1, now, 1, False, 2), now)
    return s


def calls_of(action: Callable[[], object]) -> int:
    count = 0

    def seen(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        action()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("later_s", [0.0, 5.0, 61.0], ids=["asked now", "in the grace", "all are late"])
def test_a_plan_that_finds_nothing_to_do_is_as_quick_with_ten_times_the_models(later_s: float) -> None:
    counts = []
    for models in (60, 600):
        s, now = crowded(models), 1000.0 + later_s
        if later_s > s.policy.busy_grace_s:  # the busy ones drain: nothing else is to be done
            turn(s, msg.Replan(), now)
        assert len(s.waiting()) == models // 2
        assert decide(s, msg.Replan(), now) == ([], [])
        counts.append(calls_of(lambda s=s, now=now: decide(s, msg.Replan(), now)))  # type: ignore[misc]
    assert counts[1] <= counts[0] * SLACK
