"""Stories of the broker: leases, slots, offers, evictions, and memory that comes back late (protocol.md 2 and 3)."""

from tests.actors.play import Story, books, to
from vllama.actors.core import effects as fx
from vllama.actors.core import messages as msg
from vllama.actors.core.broker import decide
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.refusals import no_memory

DEV = ("gpu",)


def request(
    model: str, size: int, number: int = 1, *, fresh: bool = True, weights: int = 1
) -> msg.RequestLease:
    return msg.RequestLease(model, number, size << 30, weights << 30, () if fresh else DEV, fresh)


def measured(story: Story, **used: int) -> msg.Measured:
    """The device as measured now, GiB by model."""
    total = story.state.devices["gpu"].total_bytes
    by = tuple((model, size << 30) for model, size in used.items() if model != "others")
    free = total - (sum(used.values()) << 30)
    return msg.Measured(story.state.epoch, (msg.DeviceMeasured("gpu", free, 0, by),))


def machine(kind: str = "cuda", total: int = 10) -> Story:
    return books() >> msg.DeviceFound("gpu", kind, total << 30) << None  # type: ignore[arg-type]


def ask(story: Story, message: msg.RequestLease, **used: int) -> list[object]:
    """All that comes of a request, the measurement included (always one: an outsider may have moved since)."""
    story >> message
    first = effects_of(story)
    story >> measured(story, **used)
    return [*first, *effects_of(story)]


def held(story: Story, model: str, size: int, **used: int) -> Story:
    """A model that holds a lease and is awake; `used` is what was measured just before it was granted."""
    assert to(model, msg.LeaseGranted(1, size << 30, DEV))[0] in ask(story, request(model, size), **used)
    return story


def effects_of(story: Story) -> list[object]:
    found = list(story._todo or [])
    story.skip()
    return found


def test_grants_only_on_a_fresh_measurement() -> None:
    story = machine()
    story >> request("a", 4) << [fx.Measure(0), fx.SetTick(1.0)]
    story >> measured(story) << to("a", msg.LeaseGranted(1, 4 << 30, DEV))


def test_memory_that_an_outsider_holds_is_not_granted() -> None:
    story = machine()
    assert ask(story, request("a", 4, weights=4), others=7) == [fx.Measure(0), fx.SetTick(1.0)]
    story.later(1) >> msg.Tick()
    story.skip() >> measured(story, others=2)
    assert to("a", msg.LeaseGranted(1, 4 << 30, DEV))[0] in effects_of(story)


def test_an_old_look_at_a_gpu_is_not_granted_on_for_outsiders_may_have_come() -> None:
    story = sleeper(machine(), "a", 2, pinned=False)
    story.later(100) >> msg.RequestLease("a", 2, 8 << 30, 4 << 30, DEV, fresh=False, launched_bytes=8 << 30)
    assert fx.Measure(story.state.epoch) in effects_of(story)
    story >> measured(story, a=2, others=5)
    assert not [e for e in effects_of(story) if isinstance(e, fx.TellInstance)]
    story >> msg.Tick()
    story.skip() >> measured(story, a=2)
    assert to("a", msg.LeaseGranted(2, 8 << 30, DEV))[0] in effects_of(story)


def test_an_old_look_at_ram_will_do_for_it_counts_what_is_ours() -> None:
    story = sleeper(machine("cpu"), "a", 2, pinned=False)
    story.later(100) >> msg.RequestLease("a", 2, 8 << 30, 4 << 30, DEV, fresh=False)
    assert to("a", msg.LeaseGranted(2, 8 << 30, DEV))[0] in effects_of(story)


def test_evicts_the_least_recently_used_idle_one() -> None:
    story = machine()
    held(story, "a", 4)
    held(story, "b", 4, a=4)
    offers = ask(story, request("c", 4), a=4, b=4)
    assert to("a", msg.Offer(1))[0] in offers
    assert to("b", msg.Offer(1))[0] in offers
    story >> msg.Candidate("a", 1, 50.0, 0, False, 2)
    story.skip() >> msg.Candidate("b", 1, 40.0, 0, False, 2)
    assert effects_of(story) == to("b", msg.Evict(1, 2))
    story >> msg.ReturnLease("b", 1, 1 << 30, 40.0)
    story.skip() >> measured(story, a=4, b=4)  # the memory is not back yet
    assert not any(isinstance(e, fx.TellInstance) for e in effects_of(story))
    story >> msg.Tick()
    story.skip() >> measured(story, a=4, b=1)
    assert to("c", msg.LeaseGranted(1, 4 << 30, DEV))[0] in effects_of(story)


def test_busy_one_drains_only_after_the_grace_and_a_pinned_one_never() -> None:
    story = machine()
    held(story, "a", 4)
    held(story, "p", 4, a=4)
    ask(story, request("c", 4), a=4, p=4)
    story >> msg.Candidate("a", 1, 50.0, 2, False, 2)
    story.skip() >> msg.Candidate("p", 1, 10.0, 0, True, 2)
    assert effects_of(story) == []
    story.later(11) >> msg.Tick()
    assert to("a", msg.Evict(1, 2))[0] in effects_of(story)


def test_sleepers_residue_is_stopped_when_it_stands_in_the_way() -> None:
    story = machine()
    held(story, "a", 4)
    story >> msg.ReturnLease("a", 1, 2 << 30, 5.0)
    story.skip() >> measured(story, a=2)
    story.skip()
    assert story.state.leases["a", 1].state == "residue"
    assert to("a", msg.Evict(1, 3))[0] in ask(story, request("c", 9), a=2)


def sleeper(story: Story, model: str, size: int, *, pinned: bool) -> Story:
    """A model that held 4 GiB and sleeps: `size` of them stay."""
    held(story, model, 4)
    story >> msg.ReturnLease(model, 1, size << 30, 5.0, pinned=pinned)
    story.skip() >> measured(story, **{model: size})
    story.skip()
    assert story.state.leases[model, 1].state == "residue"
    return story


def test_a_pinned_sleepers_residue_stays_and_a_fresh_start_is_cut_down_to_what_is_left() -> None:
    story = sleeper(machine(), "p", 2, pinned=True)
    assert to("c", msg.LeaseGranted(1, 8 << 30, DEV))[0] in ask(story, request("c", 9), p=2)
    assert story.state.leases["p", 1].state == "residue"


def test_a_pinned_sleeper_is_nobodys_way_out_of_a_short_start_and_is_named() -> None:
    story = sleeper(machine(), "p", 2, pinned=True)
    need = msg.RequestLease("c", 1, 9 << 30, 9 << 30, (), fresh=True)
    assert [e for e in ask(story, need, p=2) if isinstance(e, fx.TellInstance)] == []
    assert story.state.leases["c", 1].sought == (("gpu", (("p", "pinned"),)),)
    story = sleeper(machine(), "p", 2, pinned=True)
    ran_out = msg.RequestLease("d", 1, 1 << 30, 1, (), fresh=True, squeeze=True)
    refused = [e for e in ask(story, ran_out, p=2) if isinstance(e, fx.TellInstance)]
    assert [(e.message.exhausted, "p (residue, 2.0 GiB)" in e.message.refusal.message) for e in refused] == [
        (True, True)
    ]


def test_of_two_sleepers_the_pinned_one_stays_and_its_bytes_do_not_count() -> None:
    story = sleeper(machine(), "p", 3, pinned=True)
    held(story, "a", 4, p=3)
    story >> msg.ReturnLease("a", 1, 2 << 30, 50.0)
    story.skip() >> measured(story, p=3, a=2)
    story.skip()
    assert to("a", msg.Evict(1, 3))[0] in ask(story, request("c", 7), p=3, a=2)  # though p slept long before
    assert not story.state.leases["p", 1].evicting


def test_what_a_pinned_sleeper_holds_makes_no_room_together_with_another_sleeper() -> None:
    story = sleeper(machine(), "p", 3, pinned=True)
    held(story, "b", 5, p=3)
    held(story, "a", 2, p=3, b=5)
    story >> msg.ReturnLease("a", 1, 1 << 30, 50.0)
    story.skip() >> measured(story, p=3, b=5, a=1)
    story.skip()
    ask(story, request("c", 4), p=3, b=5, a=1)
    story >> msg.Candidate("b", 1, 50.0, 1, False, 2) << None  # a is left alone: stopping it would not do
    story.later(11) >> msg.Tick()
    assert to("b", msg.Evict(1, 2))[0] in effects_of(story)


def test_a_pinned_sleeper_that_wakes_takes_what_other_sleepers_hold() -> None:
    story = sleeper(machine(), "p", 3, pinned=True)
    held(story, "b", 3, p=3)
    held(story, "a", 4, p=3, b=3)
    story >> msg.ReturnLease("a", 1, 2 << 30, 50.0)
    story.skip() >> measured(story, p=3, b=3, a=2)
    story.skip()
    ask(story, request("p", 6, 2, fresh=False), p=3, b=3, a=2)
    story >> msg.Candidate("b", 1, 50.0, 1, False, 2) << to("a", msg.Evict(1, 3))


def test_a_pin_that_changes_while_the_model_sleeps_holds_at_once() -> None:
    story = sleeper(machine(), "p", 2, pinned=False)
    story >> msg.Prioritize("p", 1, 0, pinned=True)
    need = msg.RequestLease("c", 1, 9 << 30, 9 << 30, (), fresh=True)
    assert [e for e in ask(story, need, p=2) if isinstance(e, fx.TellInstance)] == []
    assert story >> msg.Prioritize("p", 1, 0) << to("p", msg.Evict(1, 3))


def test_a_pinned_sleeper_wakes_into_its_own_residue() -> None:
    story = sleeper(machine(total=5), "p", 1, pinned=True)
    assert to("p", msg.LeaseGranted(2, 4 << 30, DEV))[0] in ask(
        story, request("p", 4, 2, fresh=False), p=1, others=1
    )


def test_sleepers_stay_while_their_residue_would_not_do_and_somebody_is_up() -> None:
    story = machine()
    held(story, "a", 4)
    story >> msg.ReturnLease("a", 1, 1 << 30, 5.0)
    story.skip() >> measured(story, a=1)
    story.skip()
    held(story, "b", 5, a=1)
    ask(story, request("c", 7), a=1, b=5)
    story >> msg.Candidate("b", 1, 50.0, 1, False, 2) << None  # stopping a would make no room for c
    story.later(11) >> msg.Tick()
    assert to("b", msg.Evict(1, 2))[0] in effects_of(story)


def test_what_a_sleeper_has_not_returned_stays_booked_until_its_wake_is_over() -> None:
    story = machine(total=12)
    held(story, "a", 8)
    story >> msg.ReturnLease("a", 1, 1 << 30, 5.0)
    story.skip() >> measured(story, a=3)
    story.skip().later(11) >> msg.Tick()
    story.skip() >> measured(story, a=3)
    assert story.skip().state.devices["gpu"].unreturned == {"a": 2 << 30}
    ask(story, request("a", 8, 2, fresh=False), a=3)
    story >> msg.RequestSlot("a", 2, "wake", DEV)
    story.skip()
    ask(story, request("c", 3), a=3)  # what a takes anew would hide what it has not given back
    assert story.state.devices["gpu"].unreturned == {"a": 2 << 30}
    assert story.state.leases["c", 1].state == "waiting"
    story >> msg.ReturnSlot("a", 2)
    story.skip() >> measured(story, a=8)
    assert to("c", msg.LeaseGranted(1, 3 << 30, DEV))[0] in effects_of(story)


def test_wake_asks_only_for_what_its_sleeper_does_not_hold() -> None:
    story = machine(total=5)
    held(story, "a", 4)
    story >> msg.ReturnLease("a", 1, 1 << 30, 5.0)
    story.skip() >> measured(story, a=1, others=1)
    story.skip()
    assert to("a", msg.LeaseGranted(2, 4 << 30, DEV))[0] in ask(
        story, request("a", 4, 2, fresh=False), a=1, others=1
    )
    assert list(story.state.leases) == [("a", 2)]  # it covers the residue


def test_weights_that_can_never_fit_fail_at_once_and_say_by_how_many_bytes() -> None:
    story = machine()
    story >> request("big", 20, weights=11)
    refused = effects_of(story)[0]
    assert isinstance(refused, fx.TellInstance)
    assert isinstance(refused.message, msg.LeaseRefused)
    assert str(1 << 30) in refused.message.refusal.message


def test_fresh_start_is_cut_down_when_nothing_is_left_to_evict() -> None:
    story = machine()
    assert to("a", msg.LeaseGranted(1, 8 << 30, DEV))[0] in ask(story, request("a", 20, weights=5), others=2)


def test_later_waiter_overtakes_until_the_head_has_waited_long_enough() -> None:
    story = machine()
    held(story, "a", 4)
    ask(story, request("big", 9), a=4)
    story >> msg.Candidate("a", 1, 50.0, 1, False, 2)
    story.skip()
    assert to("small", msg.LeaseGranted(1, 1 << 30, DEV))[0] in ask(story, request("small", 1), a=4)
    story.later(61)
    assert to("late", msg.LeaseGranted(1, 1 << 30, DEV))[0] not in ask(
        story, request("late", 1), a=4, small=1
    )


def test_last_waiter_that_leaves_calls_the_drain_off() -> None:
    story = machine()
    held(story, "a", 8)
    ask(story, request("c", 4), a=8)
    story >> msg.Candidate("a", 1, 50.0, 0, False, 2)
    assert to("a", msg.Evict(1, 2))[0] in effects_of(story)
    story >> msg.ReturnLease("c", 1) << to("a", msg.CancelEvict(1), msg.WatchUse(1, on=False))


def test_wait_ends_with_who_holds_what() -> None:
    story = machine()
    held(story, "a", 8)
    story >> request("c", 4)
    story.skip().later(601) >> msg.Tick()
    refused = [e.message for e in effects_of(story) if isinstance(e, fx.TellInstance)]
    text = next(m.refusal.message for m in refused if isinstance(m, msg.LeaseRefused))
    assert "a (held, 8.0 GiB)" in text


def squeeze(model: str, size: int) -> msg.RequestLease:
    return msg.RequestLease(model, 2, size << 30, 1 << 30, (), fresh=True, squeeze=True)


def test_after_an_out_of_memory_one_more_goes_though_the_books_say_it_fits() -> None:
    story = machine()
    held(story, "a", 2)
    ask(story, squeeze("c", 1), a=2)
    story >> msg.Candidate("a", 1, 50.0, 0, False, 2)
    assert effects_of(story) == to("a", msg.Evict(1, 2))
    story >> msg.ReturnLease("a", 1, 1 << 30, 50.0)
    story.skip() >> measured(story, a=1)
    assert to("c", msg.LeaseGranted(2, 1 << 30, DEV))[0] in effects_of(story)


def test_after_an_out_of_memory_with_nobody_left_it_is_refused() -> None:
    story = machine()
    refused = [e.message for e in ask(story, squeeze("c", 1)) if isinstance(e, fx.TellInstance)]
    assert isinstance(refused[0], msg.LeaseRefused)
    assert refused[0].refusal.code == "no_memory"


def test_shortfall_is_booked_as_unreturned_after_the_bound() -> None:
    story = machine()
    held(story, "a", 8)
    story >> msg.ReturnLease("a", 1, 1 << 30, 5.0)
    story.skip() >> measured(story, a=6)
    story.skip().later(11) >> msg.Tick()
    story.skip()
    assert story.state.devices["gpu"].unreturned == {"a": 5 << 30}
    story >> measured(story, a=2)
    story.skip()
    assert story.state.devices["gpu"].unreturned == {"a": 1 << 30}  # measured again each second


def slots_granted(story: Story) -> list[str]:
    return [e.model for e in effects_of(story) if isinstance(e, fx.TellInstance)]


def test_transitions_on_a_gpu_are_one_at_a_time_sleeps_first() -> None:
    story = machine("cuda")
    story >> msg.RequestSlot("a", 1, "start", DEV)
    assert slots_granted(story) == ["a"]
    for model, kind in (("b", "start"), ("c", "wake"), ("d", "down")):
        story >> msg.RequestSlot(model, 1, kind, DEV)  # type: ignore[arg-type]
        assert slots_granted(story) == []
    order = []
    for model in ("a", "d", "c"):
        story >> msg.ReturnSlot(model, 1)
        order += slots_granted(story)
    assert order == ["d", "c", "b"]


def test_on_cpu_only_starts_are_one_at_a_time() -> None:
    story = machine("cpu")
    for model, kind in (("a", "start"), ("b", "start"), ("c", "wake"), ("d", "down")):
        story >> msg.RequestSlot(model, 1, kind, DEV)  # type: ignore[arg-type]
        story.skip()
    assert [m for (m, _), slot in story.state.slots.items() if slot.held] == ["a", "c", "d"]


def test_nothing_is_measured_while_nobody_waits() -> None:
    story = machine()
    held(story, "a", 4)
    story.later(1) >> msg.Tick() << None


def test_what_is_unknown_is_void() -> None:
    state = BrokerState()
    for message in (
        msg.ReturnLease("x", 1),
        msg.ReturnSlot("x", 1),
        msg.Busy("x", 1),
        msg.Idle("x", 1, 0.0),
        msg.Candidate("x", 1, 0.0, 0, False, 2),
        msg.EvictDeclined("x", 1),
    ):
        assert decide(state, message, 0.0) == ([], [])


def test_who_ran_out_of_memory_with_what_was_free_is_told_where_to_look() -> None:
    assert "`vllama logs m`" in no_memory("m", 700, 1200, "", 0).message
    assert "vllama logs" not in no_memory("m", 1200, 700, "n 500 B", 0).message
