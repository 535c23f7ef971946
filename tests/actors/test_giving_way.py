"""Who was put out for a waiter does not come back before it: stories of the broker, by each policy."""

import pytest

from tests.actors.play import Story, books, to
from tests.actors.test_broker import DEV, ask, effects_of, held, measured, request
from vllama.actors.core import effects as fx
from vllama.actors.core import messages as msg
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.rules import RULES

pytestmark = pytest.mark.parametrize("policy", list(RULES))


def machine(policy: str) -> Story:
    state = BrokerState(msg.BrokerPolicy(policy=policy))
    return books(state) >> msg.DeviceFound("gpu", "cuda", 10 << 30) << None


def idle(story: Story, *models: str) -> list[object]:
    """These answer that they are idle; all that comes of it."""
    found = []
    for model in models:
        story >> msg.Candidate(model, 1, 50.0, 0, False, 3)
        found += effects_of(story)
    return found


def gone(story: Story, model: str, **used: int) -> list[object]:
    """It has gone, and its memory is measured to be back."""
    story >> msg.ReturnLease(model, 1)
    found = effects_of(story)
    story >> measured(story, **used)
    return [*found, *effects_of(story)]


def granted(effects: list[object]) -> list[str]:
    return [
        effect.model
        for effect in effects
        if isinstance(effect, fx.TellInstance) and isinstance(effect.message, msg.LeaseGranted)
    ]


def wakes(model: str, size: int, *, priority: int = 0) -> msg.RequestLease:
    """It is asked for again: up sooner than any that has to be started."""
    return msg.RequestLease(model, 2, size << 30, 1 << 30, DEV, fresh=False, priority=priority)


def test_the_room_goes_to_the_one_that_it_was_made_for(policy: str) -> None:
    story = machine(policy)
    held(story, "a", 8)
    ask(story, request("c", 6), a=8)
    assert to("a", msg.Evict(1, 3))[0] in idle(story, "a")
    story >> msg.ReturnLease("a", 1)
    story.skip() >> wakes("a", 8)
    story.skip() >> measured(story)
    assert granted(effects_of(story)) == ["c"]


def test_two_that_made_room_do_not_take_turns_in_it(policy: str) -> None:
    """The first is back before the second has gone, and would fit meanwhile."""
    story = machine(policy)
    held(story, "a", 4)
    held(story, "b", 4, a=4)
    ask(story, request("big", 9), a=4, b=4)
    ordered = idle(story, "a", "b")
    assert to("a", msg.Evict(1, 3))[0] in ordered
    assert to("b", msg.Evict(1, 3))[0] in ordered
    gone(story, "a", b=4)
    assert granted(ask(story, wakes("a", 4), b=4)) == []
    assert granted(gone(story, "b")) == ["big"]


def test_who_is_more_urgent_comes_back_all_the_same(policy: str) -> None:
    story = machine(policy)
    held(story, "a", 4)
    held(story, "b", 4, a=4)
    ask(story, request("big", 9), a=4, b=4)
    idle(story, "a", "b")
    gone(story, "a", b=4)
    assert granted(ask(story, wakes("a", 4, priority=1), b=4)) == ["a"]


def test_where_the_room_does_not_come_after_all_it_is_nobodys(policy: str) -> None:
    """An outsider has taken some of it: who waits for the rest may wait long."""
    story = machine(policy)
    held(story, "a", 8)
    ask(story, request("c", 6, weights=6), a=8)
    idle(story, "a")
    story >> msg.ReturnLease("a", 1)
    story.skip() >> wakes("a", 4)
    story.skip() >> measured(story, others=5)
    assert granted(effects_of(story)) == []  # the dead one's memory may still come
    story.later(11) >> msg.Tick()
    assert granted(effects_of(story)) == ["a"]


def test_when_the_one_that_it_made_way_for_has_left_it_comes_back(policy: str) -> None:
    story = machine(policy)
    held(story, "a", 4)
    held(story, "b", 4, a=4)
    ask(story, request("big", 9), a=4, b=4)
    idle(story, "a", "b")
    gone(story, "a", b=4)
    assert granted(ask(story, wakes("a", 4), b=4)) == []
    story >> msg.ReturnLease("big", 1)
    assert granted(effects_of(story)) == ["a"]


def test_nobody_goes_for_one_that_is_kept_out(policy: str) -> None:
    """It would come back larger than it was, and first in turn."""
    story = machine(policy)
    held(story, "a", 4)
    held(story, "b", 4, a=4)
    held(story, "d", 1, a=4, b=4)
    ask(story, request("big", 9), a=4, b=4, d=1)
    ordered = idle(story, "a", "b", "d")
    assert to("d", msg.Evict(1, 3))[0] not in ordered
    gone(story, "a", b=4, d=1)
    later = ask(story, wakes("a", 10), b=4, d=1)
    assert to("d", msg.Evict(1, 3))[0] not in later
    assert granted(gone(story, "b", d=1)) == ["big"]
