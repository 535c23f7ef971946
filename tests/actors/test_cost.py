"""The policy `cost`: who goes, to which level, who is next, who is waited for; and what it reckons with."""

import pytest

from tests.actors.play import Story, play
from tests.actors.test_reasons import Recorded, ask, held
from vllama.actors.core import broker_events as bk
from vllama.actors.core import demand, prices
from vllama.actors.core import effects as fx
from vllama.actors.core import messages as msg
from vllama.actors.core.broker_state import BrokerState, Lease
from vllama.actors.core.cost import DEAR, IN_TURN, Choice, Cost, cheapest
from vllama.actors.core.eviction import Holder
from vllama.actors.core.instance_state import State
from vllama.actors.core.known import Known
from vllama.actors.translate import to_broker_policy, to_policy
from vllama.actors.wording import weighed_words
from vllama.config import ModelConfig, load_config

GIB = 2**30
NOW = 10_000.0
RULE = Cost()
WEIGHTS = 16 * 10**9


def books(ram_bytes: int = 0, **models: Known) -> BrokerState:
    return BrokerState(msg.BrokerPolicy(policy="cost", sleep_ram_max_bytes=ram_bytes), known=dict(models))


def known(visits: float, *, rises: int = 5, up_at: float = 0.0, levels: tuple[int, ...] = (1, 2, 3)) -> Known:
    return Known(
        rises=rises,
        up_at=up_at,
        visits=visits,
        visited_at=NOW,
        weights_bytes=WEIGHTS,
        copy_bytes=WEIGHTS,
        residue_bytes=GIB,
        levels=levels,
    )


def lease(model: str = "new", *, fresh: bool = False, asked_at: float = NOW, priority: int = 0) -> Lease:
    return Lease(model, 1, 20 * GIB, WEIGHTS, (), fresh, "waiting", asked_at=asked_at, priority=priority)


def up(model: str, in_flight: int = 0) -> Holder:
    return Holder(model, 1, 20 * GIB, NOW - 1, in_flight, 2)


def sleeper(model: str) -> Holder:
    return Holder(model, 1, GIB, NOW - 1, 0, 3)


def named(holders: list[Holder]) -> list[tuple[str, int]]:
    return [(h.model, h.level) for h in holders]


# --- who goes, and how deep -------------------------------------------------------------------------------------------


def test_whoever_is_asked_for_least_goes_though_another_was_used_less_recently() -> None:
    s = books(often=known(20), seldom=known(1))
    used_before = up("often")._replace(last_used=NOW - 50)
    assert named(RULE.victims(s, lease(), [used_before, up("seldom")], [], [], 10 * GIB, NOW)) == [
        ("seldom", 2)
    ]


def test_whoever_is_back_soonest_goes_of_two_that_are_asked_for_alike() -> None:
    quick, slow = known(5), known(5)
    quick.learn("wake-2", 0.5)
    slow.learn("wake-2", 30.0)
    chosen = RULE.victims(books(a=slow, b=quick), lease(), [up("a"), up("b")], [], [], 10 * GIB, NOW)
    assert named(chosen) == [("b", 2)]


@pytest.mark.parametrize(
    ("ram", "visits", "rises", "levels", "level"),
    [
        (2 * WEIGHTS, 10, 5, (1, 2, 3), 1),
        (0, 10, 5, (1, 2, 3), 2),  # the host's RAM has no room
        (2 * WEIGHTS, 10, 5, (2,), 2),  # its owner has named a level
        (2 * WEIGHTS, 10, 5, (2, 3), 2),  # level 1 has turned out not to be safe
        (
            2 * WEIGHTS,
            0.25,
            1,
            (1, 2, 3),
            2,
        ),  # asked for once: to pin host RAM for it takes longer than it gains
    ],
)
def test_the_level_is_the_one_that_costs_least(
    ram: int, visits: float, rises: int, levels: tuple[int, ...], level: int
) -> None:
    s = books(ram, a=known(visits, rises=rises, levels=levels))
    assert named(RULE.victims(s, lease(), [up("a")], [], [], 10 * GIB, NOW)) == [("a", level)]


def test_nobody_goes_in_vain_while_others_are_busy() -> None:
    assert RULE.victims(books(a=known(1)), lease(), [up("a")], [], [up("b", 3)], 50 * GIB, NOW) == []


def test_where_what_a_sleeper_keeps_is_missing_it_goes_all_the_same() -> None:
    s = books(a=known(5, levels=(2,)))
    assert named(RULE.victims(s, lease(), [up("a")], [], [], 20 * GIB, NOW)) == [("a", 2)]


def test_a_cover_has_nobody_too_many() -> None:
    one, two, three = (
        Choice(up(name), cost, size) for name, cost, size in (("a", 1, 4), ("b", 2, 6), ("c", 9, 9))
    )
    assert cheapest([one, two, three], 6) == [two]
    assert {c.holder.model for c in cheapest([one, two, three], 10)} == {"a", "b"}
    assert cheapest([one, two, three], 20) == []


def test_a_sleeper_stays_while_one_that_is_up_will_do_in_a_moment() -> None:
    s = books(2 * WEIGHTS, asleep=known(3), flying=known(3))
    shown = [], [sleeper("asleep")], [up("flying", 2)]
    assert RULE.victims(s, lease(), *shown, GIB, NOW) == []
    found = Lease("asleep", 1, GIB, WEIGHTS, (), False, "residue")
    assert RULE.spares(s, lease(), found, NOW, nobody=True) == DEAR
    late = lease(asked_at=NOW - 60)
    assert named(RULE.victims(s, late, *shown, GIB, NOW)) == [("asleep", 3)]


def test_a_sleeper_that_nobody_asks_for_is_stopped_at_once() -> None:
    s = books(2 * WEIGHTS, asleep=known(0.01), flying=known(30))
    assert named(RULE.victims(s, lease(), [], [sleeper("asleep")], [up("flying", 2)], GIB, NOW)) == [
        ("asleep", 3)
    ]


# --- how long, and who is next ----------------------------------------------------------------------------------------


def test_a_busy_one_serves_for_its_quantum_and_then_the_longest_first() -> None:
    s = books(a=known(30, up_at=NOW - 5), b=known(30, up_at=NOW - 500), c=known(30, up_at=NOW - 400))
    busy = [up(name, 9) for name in ("a", "b", "c")]
    assert RULE.busy_victim(s, lease(), busy[:1], NOW) is None
    found = Lease("a", 1, 20 * GIB, WEIGHTS, (), False, "held", in_flight=9)
    assert RULE.spares(s, lease(), found, NOW, nobody=True) == IN_TURN
    chosen = RULE.busy_victim(s, lease(), busy, NOW)
    assert chosen is not None
    assert chosen.model == "b"
    overdue = RULE.busy_victim(s, lease(asked_at=NOW - 60), busy[:1], NOW)
    assert overdue is not None
    assert overdue.model == "a"


def test_who_is_up_sooner_is_next_until_somebody_has_waited_long_enough() -> None:
    s = books(wake=known(1), start=known(1))
    start, wake = lease("start", fresh=True, asked_at=NOW - 10), lease("wake")
    assert RULE.order(s, [start, wake], NOW) == [wake, start]
    assert RULE.order(s, [start, wake], NOW + 55) == [start, wake]


def test_a_priority_comes_before_all_reckoning() -> None:
    s = books(wake=known(1), start=known(1))
    start, wake = lease("start", fresh=True, priority=1), lease("wake")
    assert RULE.order(s, [wake, start], NOW) == [start, wake]


# --- what it reckons with ---------------------------------------------------------------------------------------------


def test_requests_of_one_moment_are_one_visit_and_visits_fade() -> None:
    story = Story(State(model="m", phase=msg.Phase.AWAKE, run=1), play()._core, drain_self=False)
    for ask_ in range(3):
        (story >> msg.Acquire(ask_)).skip()
    assert story.state.visits == demand.FIRST
    story.later(demand.VISIT_S)
    (story >> msg.Acquire(3)).skip()
    assert story.state.visits == pytest.approx(1 + demand.FIRST, rel=0.01)
    assert demand.faded(1.0, demand.DEMAND_S) == pytest.approx(1 / 2.718, rel=0.01)


def test_an_instance_tells_what_its_wake_took_and_how_often_it_is_asked_for() -> None:
    story = play()
    (story >> msg.Acquire(1)).skip()
    (story >> msg.LeaseGranted(1, 100, ("gpu",))).skip()
    (story >> msg.SlotGranted(1)).skip()
    (story >> msg.EngineLaunched(1, 1, 1, "", "", "")).skip()
    story.later(40.0) >> msg.EngineReady(1)
    told = [e.message for e in story._todo or [] if isinstance(e, fx.TellBroker)]
    story.skip()
    (slot,) = (m for m in told if isinstance(m, msg.ReturnSlot))
    assert (slot.took_s, slot.level) == (40.0, 3)
    story >> msg.Offer(1)
    (offer,) = (e.message for e in story._todo or [])
    story.skip()
    assert offer.visits == demand.FIRST


def test_what_a_start_waited_for_the_preload_is_no_part_of_what_it_took() -> None:
    story = play()
    (story >> msg.Acquire(1)).skip()
    (story >> msg.LeaseGranted(1, 100, ("gpu",))).skip()
    (story >> msg.SlotGranted(1)).skip()
    story.later(15.5)
    (story >> msg.EngineLaunched(1, 1, 1, "", "", "", 15.0)).skip()

    def took() -> list[tuple[float, int]]:
        told = [e.message for e in story._todo or [] if isinstance(e, fx.TellBroker)]
        story.skip()
        return [(m.took_s, m.level) for m in told if isinstance(m, msg.ReturnSlot)]

    story.later(7.0) >> msg.EngineReady(1)
    assert took() == [(7.5, 3)]
    (story >> msg.Release(1)).skip()
    (story >> msg.Sleep(9, 2)).skip()
    (story >> msg.SlotGranted(2)).skip()
    (story >> msg.EngineAsleep(1, 2, 0, 0)).skip()
    (story >> msg.Acquire(2)).skip()
    (story >> msg.LeaseGranted(2, 100, ("gpu",))).skip()
    (story >> msg.SlotGranted(3)).skip()
    story.later(4.0) >> msg.EngineReady(1)
    assert took() == [(4.0, 2)]  # a wake waits for no preload


def test_the_broker_learns_moving_averages_by_move_and_level() -> None:
    story = Story(BrokerState(), Recorded(), drain_self=True)
    story >> msg.DeviceFound("gpu", "cuda", 10 * GIB) << None
    for turn, took_s in enumerate((2.0, 1.0, 1.0), 1):
        (story >> msg.RequestSlot("m", turn, "wake", ("gpu",))).skip()
        (story >> msg.ReturnSlot("m", turn, took_s=took_s, level=1)).skip()
    found = story.state.known["m"]
    assert found.seconds["wake-1"] == pytest.approx(1 + 0.7 * 0.7)
    assert (found.rises, found.up_at) == (3, story.now)
    assert prices.up_s(found, 1, WEIGHTS) == found.seconds["wake-1"]
    assert prices.up_s(found, 2, WEIGHTS) > 5  # not measured: as figures let expect


def test_an_eviction_says_what_was_weighed_and_words_tell_it() -> None:
    core = Recorded()
    story = Story(BrokerState(msg.BrokerPolicy(policy="cost")), core, drain_self=True)
    story >> msg.DeviceFound("gpu", "cuda", 10 * GIB) << None
    held(story, "a", 3)
    held(story, "b", 3, a=3)
    ask(story, msg.RequestLease("c", 1, 5 * GIB, GIB, (), True), a=3, b=3)
    (story >> msg.Candidate("a", 1, story.now, 0, False, 2, (2, 3), 0, 9.0)).skip()
    (story >> msg.Candidate("b", 1, story.now, 0, False, 2, (2, 3), 0, 1.0)).skip()
    (ordered,) = core.of(bk.EvictionOrdered)
    assert (ordered.model, ordered.weighed[0]) == ("b", 0.5)
    assert weighed_words(ordered.weighed).startswith("0.5 visits expected in the next 5 min, ")


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "entry", "on_gpu", "free"),
    [
        ({"policy": "cost"}, {}, True, True),
        ({"policy": "cost"}, {}, False, False),  # on a CPU level 1 keeps the weights where they are
        ({"policy": "cost", "sleep_level": 2}, {}, True, False),
        ({"policy": "cost"}, {"sleep_level": 2}, True, False),
        ({"policy": "lru"}, {}, True, False),
    ],
)
def test_the_broker_chooses_the_level_where_nobody_has_named_one(
    flags: dict, entry: dict, on_gpu: bool, free: bool
) -> None:
    config = load_config(flags, env={})
    assert to_policy(config, ModelConfig(**entry), on_gpu=on_gpu).any_level is free
    assert to_broker_policy(config, 1).policy == flags["policy"]
