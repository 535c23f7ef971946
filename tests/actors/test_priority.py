"""Priority: the higher is served first and evicted later; who has waited `max_wait_s` is next all the same."""

import dataclasses

import pytest

from tests.actors.play import play, to, to_broker
from tests.actors.test_broker import DEV, ask, effects_of, held, machine, measured
from vllama.actors.core import effects as fx
from vllama.actors.core import messages as msg
from vllama.actors.core.eviction import Holder, busy_victim, victims
from vllama.actors.core.instance_state import State
from vllama.actors.core.messages import Phase, Policy

GIB = 2**30


def wants(model: str, size: int, priority: int) -> msg.RequestLease:
    return msg.RequestLease(model, 1, size * GIB, GIB, (), True, priority=priority)


def candidate(model: str, used: float, priority: int, in_flight: int = 0) -> msg.Candidate:
    return msg.Candidate(model, 1, used, in_flight, False, 2, priority=priority)


def granted(story) -> list[str]:
    return [
        e.model
        for e in effects_of(story)
        if isinstance(e, fx.TellInstance) and isinstance(e.message, msg.LeaseGranted)
    ]


# --- the broker ---------------------------------------------------------------------------------------------------


def full(*waiting: tuple[str, int]):
    """A device of 10 GiB that a busy model fills; these wait for 8 GiB each, in this order, at their priorities."""
    story = machine()
    held(story, "a", 9)
    for model, priority in waiting:
        ask(story, wants(model, 8, priority), a=9)
    story >> candidate("a", 50.0, 0, in_flight=1)
    story.skip()
    return story


def freed(story) -> list[str]:
    """The first one goes; who gets its memory."""
    story >> msg.ReturnLease("a", 1)
    story.skip() >> measured(story)
    return granted(story)


def test_the_higher_one_is_served_first_though_it_came_later() -> None:
    assert freed(full(("low", 0), ("high", 1))) == ["high"]
    assert freed(full(("first", 1), ("second", 1))) == ["first"]
    assert freed(full(("lowered", -1), ("plain", 0))) == ["plain"]


def test_who_has_waited_max_wait_s_is_next_whatever_its_priority() -> None:
    story = full(("low", 0), ("high", 5))
    story.later(story.state.policy.max_wait_s)
    assert freed(story) == ["low"]


def test_a_lease_that_waits_may_become_more_urgent_and_less_so() -> None:
    story = full(("one", 0), ("other", 1))
    story >> msg.Prioritize("one", 1, 2)
    assert freed(story.skip()) == ["one"]
    story = full(("one", 3), ("other", 1))
    story >> msg.Prioritize("one", 1, 0)
    assert freed(story.skip()) == ["other"]
    assert story >> msg.Prioritize("nobody", 1, 0) << None


def test_the_lower_one_goes_though_it_was_used_later() -> None:
    story = machine()
    held(story, "dear", 4)
    held(story, "cheap", 4, dear=4)
    ask(story, wants("c", 4, 0), dear=4, cheap=4)
    story >> candidate("dear", 10.0, 1)
    story.skip() >> candidate("cheap", 50.0, 0)
    assert effects_of(story) == to("cheap", msg.Evict(1, 2))


def test_the_higher_one_goes_where_the_lower_one_would_not_do() -> None:
    story = machine()
    held(story, "dear", 6)
    held(story, "cheap", 2, dear=6)
    ask(story, wants("c", 9, 0), dear=6, cheap=2)
    story >> candidate("dear", 10.0, 1)
    story.skip() >> candidate("cheap", 50.0, 0)
    assert {e.model for e in effects_of(story)} == {"dear", "cheap"}


def test_of_the_busy_the_lower_one_drains() -> None:
    story = machine()
    held(story, "dear", 4)
    held(story, "cheap", 4, dear=4)
    ask(story, wants("c", 4, 0), dear=4, cheap=4)
    story >> candidate("dear", 10.0, 1, in_flight=1)
    story.skip() >> candidate("cheap", 50.0, 0, in_flight=1)
    story.skip().later(11) >> msg.Tick()
    assert to("cheap", msg.Evict(1, 2))[0] in effects_of(story)


def test_a_lower_sleeper_is_stopped_before_a_higher_one_that_slept_earlier() -> None:
    story = machine()
    for model, priority, used in (("dear", 1, 5.0), ("cheap", 0, 50.0)):
        held(story, model, 4, **({"dear": 3} if model == "cheap" else {}))
        story >> msg.ReturnLease(model, 1, 3 * GIB, used, priority=priority)
        story.skip() >> measured(story, **{"dear": 3} | ({"cheap": 3} if model == "cheap" else {}))
        story.skip()
    assert to("cheap", msg.Evict(1, 3))[0] in ask(story, wants("c", 6, 0), dear=3, cheap=3)
    assert story.state.leases["dear", 1].evicting is False


def test_the_plain_rule_takes_priority_before_use() -> None:
    dear, cheap = Holder("dear", 1, 5, 1.0, 0, 2, 1), Holder("cheap", 1, 5, 9.0, 0, 2, 0)
    assert victims([dear, cheap], 5) == [cheap]
    assert busy_victim([dear._replace(in_flight=1), cheap._replace(in_flight=1)]).model == "cheap"


# --- the instance -------------------------------------------------------------------------------------------------


def instance(**policy):
    return play(State(model="m", policy=Policy(priority=policy.pop("priority", 0), **policy)))


def lease_of(story) -> msg.RequestLease:
    (told,) = effects_of(story)
    return told.message


@pytest.mark.parametrize(("own", "asked", "told"), [(0, None, 0), (4, None, 4), (4, 1, 1), (-3, 2, 2)])
def test_a_request_waits_at_its_own_priority_or_its_models(own: int, asked: int | None, told: int) -> None:
    story = instance(priority=own) >> msg.Acquire(1, "", asked)
    assert lease_of(story).priority == told


def test_the_broker_hears_of_a_more_urgent_one_that_joins_and_when_it_leaves() -> None:
    story = instance() >> msg.Acquire(1)
    story.skip() >> msg.Acquire(2, "", 3) << to_broker(msg.Prioritize("m", 1, 3))
    story >> msg.Acquire(3, "", 2) << None
    story >> msg.Acquire(4, "", -5) << None
    story >> msg.Release(2) << to_broker(msg.Prioritize("m", 1, 2))
    story >> msg.Release(4) << None
    story >> msg.Release(3) << to_broker(msg.Prioritize("m", 1, 0))


def test_those_who_waited_are_admitted_the_most_urgent_first() -> None:
    story = instance()
    for number, priority in ((1, None), (2, -1), (3, 7), (4, 0)):
        story >> msg.Acquire(number, "", priority)
        story.skip()
    story >> msg.LeaseGranted(1, GIB, DEV)
    story.skip() >> msg.SlotGranted(1)
    story.skip() >> msg.EngineReady(1)
    admitted = [e.ask for e in effects_of(story) if isinstance(e, fx.Admit)]
    assert admitted == [3, 1, 4, 2]
    assert story.state.own_priorities == {}


def test_a_changed_entry_counts_at_once_for_who_waits_and_for_a_sleeper() -> None:
    story = instance() >> msg.Acquire(1)
    policy = dataclasses.replace(story.state.policy, priority=6)
    story.skip() >> msg.Configure(policy, story.state.need) << to_broker(msg.Prioritize("m", 1, 6))
    asleep = State(model="m", phase=Phase.ASLEEP, alive=True, level=2, residue_lease=4, lease=4)
    story = play(asleep) >> msg.Configure(policy, asleep.need)
    assert effects_of(story) == to_broker(msg.Prioritize("m", 4, 6))
    pinned = dataclasses.replace(policy, pinned=True)
    story >> msg.Configure(pinned, asleep.need) << to_broker(msg.Prioritize("m", 4, 6, pinned=True))
    story >> msg.Configure(policy, asleep.need) << to_broker(msg.Prioritize("m", 4, 6))


def test_a_candidate_says_its_models_priority() -> None:
    awake = State(
        model="m", phase=Phase.AWAKE, alive=True, lease=2, lease_state="held", policy=Policy(priority=8)
    )
    story = play(awake) >> msg.Offer(2)
    assert lease_of(story).priority == 8
