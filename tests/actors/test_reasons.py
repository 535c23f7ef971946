"""What the broker writes down when it seeks room: who goes, who is spared and why; and that such lists have an end."""

from typing import Any

import pytest

from tests.actors.play import Story
from tests.actors.test_broker import ask, held, measured
from vllama.actors.core import broker
from vllama.actors.core import broker_events as ev
from vllama.actors.core import messages as msg
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.reasons import REASONS_MAX, SOUGHT_MAX

GIB = 2**30


class Recorded:
    """The broker's core; what it says has happened is kept."""

    evolve = staticmethod(broker.evolve)

    def __init__(self) -> None:
        self.events: list[Any] = []

    def decide(self, s: BrokerState, m: Any, now: float) -> Any:
        events, effects = broker.decide(s, m, now)
        self.events += events
        return events, effects

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


@pytest.fixture
def core() -> Recorded:
    return Recorded()


@pytest.fixture
def story(core: Recorded) -> Story:
    """A device of 10 GiB: a and b take 3 each, the pinned p 2."""
    story = Story(BrokerState(), core, drain_self=True)
    story >> msg.DeviceFound("gpu", "cuda", 10 * GIB) << None
    held(story, "a", 3)
    held(story, "b", 3, a=3)
    return held(story, "p", 2, a=3, b=3)


def wanted(story: Story, size: int, a: int, b: int) -> None:
    """`c` asks; a and b have so many requests in flight, and b was used before a."""
    ask(story, msg.RequestLease("c", 1, size * GIB, GIB, (), True), a=3, b=3, p=2)
    story >> msg.Candidate("a", 1, 50.0, a, False, 2)
    story.skip() >> msg.Candidate("b", 1, 40.0, b, False, 1)
    story.skip() >> msg.Candidate("p", 1, 10.0, 0, True, 2)
    story.skip()


def test_an_eviction_says_what_was_short_who_goes_and_why_the_others_stay(
    story: Story, core: Recorded
) -> None:
    wanted(story, 4, a=3, b=0)
    assert core.of(ev.EvictionOrdered) == [
        ev.EvictionOrdered(
            "b", 1, 1, "c", 2 * GIB, (("a", 50.0, 3), ("b", 40.0, 0)), story.now, 1, "gpu",
            (("a", "busy", 3), ("p", "pinned", 0)),
        )
    ]  # fmt: skip
    assert core.of(ev.RoomSought) == []


def test_who_would_not_be_missed_is_not_needed(story: Story, core: Recorded) -> None:
    wanted(story, 4, a=0, b=0)
    (ordered,) = core.of(ev.EvictionOrdered)
    assert (ordered.model, ordered.spared[0]) == ("b", ("a", "not needed", 0))


def test_a_wait_in_which_nobody_can_go_says_why_once_for_each_situation(story: Story, core: Recorded) -> None:
    wanted(story, 4, a=3, b=1)
    busy = ev.RoomSought(
        "c", 1, "gpu", 2 * GIB, (("a", "busy", 3), ("b", "busy", 1), ("p", "pinned", 0)), 0, story.now
    )
    assert core.of(ev.RoomSought) == [busy]
    for _ in range(3):
        story.later(1) >> msg.Tick()
        story.skip() >> measured(story, a=3, b=3, p=2)
        story.skip()
    assert core.of(ev.RoomSought) == [busy]
    story >> msg.EvictDeclined("a", 1)
    assert [event.spared[0] for event in core.of(ev.RoomSought)] == [("a", "busy", 3), ("a", "coming up", 0)]


def test_lists_and_situations_have_an_end(core: Recorded) -> None:
    story = Story(BrokerState(), core, drain_self=True)
    story >> msg.DeviceFound("gpu", "cuda", 100 * GIB) << None
    names = [f"m{number}" for number in range(30)]
    used: dict[str, int] = {}
    for name in names:
        held(story, name, 3, **used)
        used[name] = 3
    ask(story, msg.RequestLease("c", 1, 40 * GIB, GIB, (), True), **used)
    for name in names:
        story >> msg.Candidate(name, 1, 50.0, 1, False, 2)
        story.skip()
    (sought,) = core.of(ev.RoomSought)
    assert (len(sought.spared), sought.left_out) == (REASONS_MAX, 30 - REASONS_MAX)
    for turn in range(2 * SOUGHT_MAX):  # always another pattern of who declines
        for bit, name in enumerate(names[:5]):
            declines = bool(turn >> bit & 1)
            story >> (msg.EvictDeclined(name, 1) if declines else msg.Candidate(name, 1, 50.0, 1, False, 2))
            story.skip()
    assert len(core.of(ev.RoomSought)) == SOUGHT_MAX
