"""A sleeper that cannot be woken within what there is, whoever else goes: stories of the broker, and of the instance."""

from tests.actors.play import Story, to
from tests.actors.test_broker import DEV, effects_of, held, machine, request, sleeper
from vllama.actors.core import effects as fx
from vllama.actors.core import messages as msg

GIB = 1 << 30


def wake(model: str, size: int, *, launched: int, weights: int = 1) -> msg.RequestLease:
    return msg.RequestLease(
        model, 2, size * GIB, weights * GIB, DEV, fresh=False, launched_bytes=launched * GIB
    )


def beside(story: Story, message: msg.RequestLease, *, zygote: int = 0, **used: int) -> list[object]:
    """All that comes of a request on a device where vllama's own zygote holds so many GiB."""
    look(story, zygote=zygote, **used)
    story >> message
    return effects_of(story)


def look(story: Story, *, zygote: int = 0, **used: int) -> list[object]:
    by = tuple((model, size * GIB) for model, size in used.items() if model != "others")
    total = story.state.devices["gpu"].total_bytes
    free = total - (zygote + sum(used.values())) * GIB
    found = msg.DeviceMeasured("gpu", free, zygote * GIB, by)
    story >> msg.Measured(story.state.epoch, (found,))
    return effects_of(story)


def slept(story: Story, model: str, size: int, residue: int) -> Story:
    """It held so many GiB and sleeps."""
    held(story, model, size)
    story >> msg.ReturnLease(model, 1, residue * GIB, 5.0)
    story.skip() >> msg.Measured(
        story.state.epoch,
        (msg.DeviceMeasured("gpu", 10 * GIB - residue * GIB, 0, ((model, residue * GIB),)),),
    )
    story.skip()
    assert story.state.leases[model, 1].state == "residue"
    return story


def test_a_sleeper_that_the_zygote_has_left_no_room_for_is_stopped_at_once_and_starts_within_what_there_is() -> (
    None
):
    story = slept(machine("cpu"), "a", 9, 1)
    assert to("a", msg.Evict(1, 3))[0] in beside(story, wake("a", 9, launched=9), zygote=3, a=1)
    story >> msg.ReturnLease("a", 2)  # it waits for no wake any more...
    story.skip() >> msg.ReturnLease("a", 1)
    story.skip()
    fresh = msg.RequestLease("a", 3, 9 * GIB, 1 * GIB, (), fresh=True)
    assert to("a", msg.LeaseGranted(3, 7 * GIB, DEV))[0] in beside(story, fresh, zygote=3)


def test_one_that_was_started_within_what_there_is_wakes_whatever_it_takes() -> None:
    story = slept(machine("cpu"), "a", 9, 1)
    granted = to("a", msg.LeaseGranted(2, 7 * GIB, DEV))[0]
    assert granted in beside(story, wake("a", 9, launched=7), zygote=3, a=1)


def test_a_sleeper_whose_residue_has_grown_a_little_wakes() -> None:
    """It was to wait, nothing short of the whole device would do, for the bytes that it holds itself."""
    story = slept(machine("cpu"), "a", 9, 1)
    story >> wake("a", 10, launched=9)
    first = effects_of(story)
    grown = GIB + 2**12
    found = msg.DeviceMeasured("gpu", 10 * GIB - grown, 0, (("a", grown),))
    story >> msg.Measured(story.state.epoch, (found,))
    assert to("a", msg.LeaseGranted(2, 10 * GIB, DEV))[0] in [*first, *effects_of(story)]


def test_what_outsiders_hold_is_waited_for_first_as_long_as_for_a_busy_one() -> None:
    story = slept(machine(), "a", 9, 1)
    assert to("a", msg.Evict(1, 3))[0] not in beside(story, wake("a", 9, launched=9), a=1, others=4)
    story.later(9) >> msg.Tick()
    assert to("a", msg.Evict(1, 3))[0] not in effects_of(story)
    story.later(2) >> msg.Tick()
    assert to("a", msg.Evict(1, 3))[0] in effects_of(story)


def test_a_sleeper_stays_where_not_even_its_weights_would_fit() -> None:
    story = slept(machine(), "a", 9, 1)
    beside(story, wake("a", 9, launched=9, weights=6), a=1, others=5)
    story.later(30) >> msg.Tick()
    assert not [e for e in effects_of(story) if isinstance(e, fx.TellInstance)]


def test_weights_that_the_zygote_leaves_no_room_for_are_refused_at_once_and_it_is_named() -> None:
    story = machine("cpu")
    told = beside(story, request("a", 9, weights=8), zygote=3)
    (refused,) = [e.message for e in told if isinstance(e, fx.TellInstance)]
    assert isinstance(refused, msg.LeaseRefused)
    assert "can never fit" in refused.refusal.message
    assert "of which vllama's zygote holds 3.0 GiB" in refused.refusal.message


def test_who_holds_the_rest_names_the_zygote_and_others() -> None:
    story = sleeper(machine("cpu"), "p", 2, pinned=True)
    beside(story, request("c", 9, weights=4), zygote=3, p=2, others=2)
    story.later(601) >> msg.Tick()
    (refused,) = [e.message for e in effects_of(story) if isinstance(e, fx.TellInstance)]
    assert "vllama's zygote (3.0 GiB), others on gpu (2.0 GiB)" in refused.refusal.message


def test_nobody_goes_for_a_wake_that_cannot_be() -> None:
    story = slept(machine("cpu"), "a", 9, 1)
    held(story, "b", 4, a=1)
    told = beside(story, wake("a", 9, launched=9), zygote=3, a=1, b=4)
    assert to("a", msg.Evict(1, 3))[0] in told
    assert not any(isinstance(e, fx.TellInstance) and e.model == "b" for e in told)


def test_a_wake_that_fits_once_somebody_goes_is_a_wake() -> None:
    story = slept(machine("cpu"), "a", 6, 1)
    held(story, "b", 4, a=1)
    told = beside(story, wake("a", 6, launched=6), zygote=3, a=1, b=4)
    assert to("b", msg.Offer(1))[0] in told
