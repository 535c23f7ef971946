"""Stories of the broker with two GPUs: where a lease goes, and what goes for it."""

import pytest

from tests.actors.play import Story, books, to
from vllama.actors.core import effects as fx
from vllama.actors.core import messages as msg

GIB = 2**30


def machine(*totals: int) -> Story:
    story = books()
    for number, total in enumerate(totals):
        story >> msg.DeviceFound(f"g{number}", "cuda", total * GIB) << None
    return story


def request(model: str, size: int, *devices: str, lease: int = 1) -> msg.RequestLease:
    return msg.RequestLease(model, lease, size * GIB, GIB, devices, True)


def measured(story: Story, *used: dict[str, int], lost: str = "") -> msg.Measured:
    """Each GPU as measured now, GiB by model; "others" is nobody's."""
    found = []
    for device, by in zip(story.state.devices.values(), used, strict=True):
        free = 0 if device.id == lost else device.total_bytes - sum(by.values()) * GIB
        ours = tuple((model, size * GIB) for model, size in by.items() if model != "others")
        found.append(msg.DeviceMeasured(device.id, free, 0, ours))
    return msg.Measured(story.state.epoch, tuple(found))


def effects_of(story: Story) -> list[object]:
    found = list(story._todo or [])
    story.skip()
    return found


def ask(story: Story, message: msg.RequestLease, *used: dict[str, int], lost: str = "") -> list[object]:
    story >> message
    first = effects_of(story)
    story >> measured(story, *used, lost=lost)
    return [*first, *effects_of(story)]


def granted(effects: list[object], model: str) -> tuple[str, ...]:
    """Where this model was granted its lease; () when it was not."""
    return next(
        (e.message.devices for e in effects if isinstance(e, fx.TellInstance) and e.model == model
         and isinstance(e.message, msg.LeaseGranted)), (),
    )  # fmt: skip


def offered(effects: list[object]) -> set[str]:
    return {e.model for e in effects if isinstance(e, fx.TellInstance) and isinstance(e.message, msg.Offer)}


def test_where_it_fits_the_emptiest_first() -> None:
    assert granted(ask(machine(10, 12), request("a", 4), {}, {}), "a") == ("g1",)


def test_where_it_fits_though_another_is_emptier_in_what_could_be_evicted() -> None:
    story = machine(10, 20)
    assert granted(ask(story, request("a", 18), {}, {}), "a") == ("g1",)
    assert granted(ask(story, request("b", 9), {}, {"a": 18}), "b") == ("g0",)


def two_held() -> Story:
    """a (8 of 20) on g1, b (4 of 6) on g0; c wants 5 and fits on neither... once d (8) has come to g1."""
    story = machine(6, 20)
    assert granted(ask(story, request("a", 8), {}, {}), "a") == ("g1",)
    assert granted(ask(story, request("d", 10), {}, {"a": 8}), "d") == ("g1",)
    assert granted(ask(story, request("b", 4), {}, {"a": 8, "d": 10}), "b") == ("g0",)
    return story


USED = ({"b": 4}, {"a": 8, "d": 10})


def test_else_where_the_least_must_go() -> None:
    story = two_held()
    assert offered(ask(story, request("c", 5), *USED)) == {"b"}
    story >> msg.Candidate("b", 1, 50.0, 0, False, 2)
    assert effects_of(story) == to("b", msg.Evict(1, 2))


def test_busy_ones_cost_more_than_bigger_idle_ones() -> None:
    story = two_held()
    assert offered(ask(story, request("c", 5), *USED)) == {"b"}
    story >> msg.Candidate("b", 1, 50.0, 1, False, 2)
    assert offered(effects_of(story)) == {"a", "d"}
    story >> msg.Candidate("a", 1, 40.0, 0, False, 2)
    story.skip() >> msg.Candidate("d", 1, 45.0, 0, False, 2)
    assert effects_of(story) == to("a", msg.Evict(1, 2))


def test_the_pinned_are_no_place_at_all() -> None:
    story = two_held()
    ask(story, request("c", 5), *USED)
    story >> msg.Candidate("b", 1, 50.0, 0, True, 2)
    assert offered(effects_of(story)) == {"a", "d"}


@pytest.mark.parametrize(("on_g0", "lost"), [({"b": 4, "others": 2}, ""), ({}, "g0")])
def test_a_gpu_that_outsiders_hold_or_that_is_gone_is_no_place_to_evict_on(
    on_g0: dict[str, int], lost: str
) -> None:
    story = two_held()
    story >> measured(story, on_g0, USED[1], lost=lost)
    assert offered(ask(story.skip(), request("c", 5), on_g0, USED[1], lost=lost)) == {"a", "d"}


def test_a_lease_over_two_gpus_is_both_or_none() -> None:
    story = machine(10, 10)
    assert granted(ask(story, request("a", 8, "g1"), {}, {}), "a") == ("g1",)
    effects = ask(story, request("b", 6, "g0", "g1"), {}, {"a": 8})
    assert granted(effects, "b") == ()
    assert offered(effects) == {"a"}
    assert story.state.booked_bytes("g0") == 0  # nothing is kept while it waits
    story >> msg.Candidate("a", 1, 50.0, 0, False, 2)
    assert effects_of(story) == to("a", msg.Evict(1, 2))
    story >> msg.ReturnLease("a", 1, GIB, 50.0)
    story.skip() >> measured(story, {}, {"a": 1})
    assert granted(effects_of(story), "b") == ("g0", "g1")


def over_two(*pinned: str) -> Story:
    """a holds 6 of g0's 10, b 6 of g1's 10; c wants 8 of both."""
    story = machine(10, 10)
    assert granted(ask(story, request("a", 6, "g0"), {}, {}), "a") == ("g0",)
    assert granted(ask(story, request("b", 6, "g1"), {"a": 6}, {}), "b") == ("g1",)
    assert offered(ask(story, request("c", 8, "g0", "g1"), {"a": 6}, {"b": 6})) == {"a", "b"}
    story >> msg.Candidate("a", 1, 50.0, 0, "a" in pinned, 2)
    return story


def test_a_gpu_of_the_pinned_does_not_keep_the_other_from_being_cleared() -> None:
    story = over_two("a")
    story.skip() >> msg.Candidate("b", 1, 50.0, 0, False, 2)
    assert effects_of(story) == to("b", msg.Evict(1, 2))  # and no cut lease while there was something to go
    story >> msg.ReturnLease("b", 1, 0, 50.0)
    story.skip() >> measured(story, {"a": 6}, {})
    assert to("c", msg.LeaseGranted(1, 4 * GIB, ("g0", "g1")))[0] in effects_of(
        story
    )  # all that is free on both


def test_both_gpus_are_cleared_for_one_lease() -> None:
    story = over_two()
    assert effects_of(story) == to("a", msg.Evict(1, 2))
    story >> msg.Candidate("b", 1, 50.0, 0, False, 2)
    assert effects_of(story) == to("b", msg.Evict(1, 2))
    story >> msg.ReturnLease("a", 1, 0, 50.0)
    story.skip() >> measured(story, {}, {"b": 6})
    story.skip() >> msg.ReturnLease("b", 1, 0, 50.0)
    story.skip() >> measured(story, {}, {})
    assert to("c", msg.LeaseGranted(1, 8 * GIB, ("g0", "g1")))[0] in effects_of(story)


def test_a_sleeper_whose_memory_came_back_late_is_booked_with_what_it_holds() -> None:
    story = machine(10)
    assert granted(ask(story, request("a", 8), {}), "a") == ("g0",)
    story >> msg.ReturnLease("a", 1, 6 * GIB, 50.0)  # measured too early
    story.skip() >> measured(story, {"a": 6})
    story.skip()
    assert story.state.booked_bytes("g0") == 6 * GIB
    effects = ask(story, request("b", 4), {"a": 1})
    assert granted(effects, "b") == ("g0",)
    assert story.state.booked_bytes("g0") == 5 * GIB


def test_what_a_pinned_sleeper_holds_is_in_nobodys_way_where_it_starts_anew_itself() -> None:
    story = machine(10, 10)
    assert granted(ask(story, request("p", 4, "g0"), {}, {}), "p") == ("g0",)
    story >> msg.ReturnLease("p", 1, 3 * GIB, 5.0, pinned=True)
    story.skip() >> measured(story, {"p": 3}, {})
    story.skip()
    assert granted(ask(story, request("a", 4, "g0"), {"p": 3}, {}), "a") == ("g0",)
    assert granted(ask(story, request("b", 9, "g1"), {"p": 3, "a": 4}, {}), "b") == ("g1",)
    assert offered(ask(story, request("p", 8, lease=2), {"p": 3, "a": 4}, {"b": 9})) == {"a"}  # not b, of 9
