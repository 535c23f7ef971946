"""Stories of the host's RAM: what a sleep at level 1 takes of it, and what happens when there is none."""

import pytest

from tests.actors.play import Story, books, play, to, to_broker
from vllama.actors.core import effects as fx
from vllama.actors.core import messages as msg
from vllama.actors.core.instance_state import State
from vllama.actors.core.messages import Phase
from vllama.actors.translate import to_broker_policy
from vllama.config import VllamaConfig

GPU = ("g0",)
COPY = 90


def awake(**policy: object) -> Story:
    """Up, idle, with a lease of 100; a sleep at level 1 would take 90 of the host's RAM."""
    state = State(model="m", need=msg.Need(100, 50, GPU, COPY), policy=msg.Policy(**policy))  # type: ignore[arg-type]
    story = play(state)
    for message in (
        msg.Acquire(1),
        msg.LeaseGranted(1, 100, GPU),
        msg.SlotGranted(1),
        msg.EngineReady(1),
        msg.EngineWeighed(1, 80),
        msg.Release(1),
    ):
        story >> message
        story.skip()
    return story


def down(number: int, copy: int = 0) -> msg.RequestSlot:
    return msg.RequestSlot("m", number, "down", GPU, copy)


def wake(story: Story, lease: int) -> None:
    """From asleep, for one request, which ends."""
    for message in (
        msg.Acquire(90 + lease),
        msg.LeaseGranted(lease, 80, GPU),
        msg.SlotGranted(story.state.slot + 1),
        msg.EngineReady(1),
        msg.Release(90 + lease),
    ):
        story >> message
        story.skip()
    assert story.state.phase is Phase.AWAKE


def test_level_1_takes_host_ram_until_the_engine_ends() -> None:
    story = awake()
    story >> msg.Evict(1, 1) << to_broker(down(2, COPY))
    story >> msg.SlotGranted(2, COPY) << fx.SleepEngine(1, 1, 80)
    story >> msg.EngineAsleep(1, 1, 20, 60)
    assert fx.TellBroker(msg.ReturnSlot("m", 2, copied=True)) in (story._todo or [])
    story.skip()
    wake(story, 2)
    assert story.state.copy_bytes == COPY  # pinned memory stays pinned
    story >> msg.Evict(2, 1) << to_broker(down(4))  # and is there for the next sleep
    story >> msg.SlotGranted(4) << fx.SleepEngine(1, 1, 80)
    story >> msg.EngineAsleep(1, 1, 20, 60)
    story.skip() >> msg.EngineExited(1, -9)
    assert fx.TellBroker(msg.ReturnCopy("m")) in (story._todo or [])
    assert story.state.copy_bytes == 0


def test_without_host_ram_level_1_is_level_2_and_the_command_says_so() -> None:
    story = awake()
    story >> msg.Sleep(9, 1) << to_broker(down(2, COPY))
    story >> msg.SlotGranted(2) << fx.SleepEngine(1, 2, 80)
    story >> msg.EngineAsleep(1, 2, 20, 60)
    (reply,) = [effect for effect in story._todo or [] if isinstance(effect, fx.Reply)]
    assert (reply.phase, reply.level) == ("asleep", 2)
    assert "sleep_ram_max_bytes" in reply.note


def test_without_host_ram_a_model_that_cannot_do_level_2_is_stopped() -> None:
    story = awake()
    story.state.misses[2] = 2
    story >> msg.Evict(1, 1) << to_broker(down(2, COPY))
    story >> msg.SlotGranted(2) << fx.StopEngine(1)


def test_without_host_ram_nothing_is_pinned_and_it_is_not_asked_for_again() -> None:
    story = awake(sleep_level=1, pin_idle_s=5.0, unload_timeout=100.0)
    story.later(5) >> msg.TimerDue(1) << to_broker(down(2, COPY))
    story >> msg.Acquire(2) << None
    admitted = [fx.Admit(2, 1, "wake"), fx.SetTimer(2, 100.0)]
    story >> msg.SlotGranted(2) << [*to_broker(msg.ReturnSlot("m", 2)), *admitted]
    story >> msg.Release(2) << None
    story.later(50) >> msg.TimerDue(2)
    (again,) = story._todo or []
    assert isinstance(again, fx.SetTimer)


def test_a_command_that_joins_a_pinning_keeps_it_asleep() -> None:
    story = awake(sleep_level=1, pin_idle_s=5.0, unload_timeout=100.0)
    story.later(5) >> msg.TimerDue(1) << to_broker(down(2, COPY))
    story >> msg.Sleep(9, 1) << None
    story >> msg.SlotGranted(2, COPY) << fx.SleepEngine(1, 1, 80)
    story >> msg.EngineAsleep(1, 1, 20, 60)
    story.skip()
    assert story.state.phase is Phase.ASLEEP


def test_host_ram_that_a_deeper_sleep_has_not_used_goes_back() -> None:
    story = awake()
    story >> msg.Evict(1, 1) << to_broker(down(2, COPY))
    story >> msg.Sleep(9, 2) << None
    story >> msg.SlotGranted(2, COPY) << fx.SleepEngine(1, 2, 80)
    story >> msg.EngineAsleep(1, 2, 20, 60)
    assert fx.TellBroker(msg.ReturnSlot("m", 2)) in (story._todo or [])
    assert story.state.copy_bytes == 0


def ram(limit: int) -> Story:
    """The broker of two GPUs."""
    story = books()
    story.state.policy = msg.BrokerPolicy(sleep_ram_max_bytes=limit)
    for device in ("g0", "g1"):
        story >> msg.DeviceFound(device, "cuda", 1000) << None
    return story


def ask(model: str, device: str, copy: int) -> msg.RequestSlot:
    return msg.RequestSlot(model, 1, "down", (device,), copy)


def test_the_books_grant_no_more_than_there_is() -> None:
    story = ram(100)
    story >> ask("a", "g0", 60) << to("a", msg.SlotGranted(1, 60))
    story >> ask("b", "g1", 60) << to("b", msg.SlotGranted(1, 0))  # the slot, and no host RAM
    story >> msg.ReturnSlot("b", 1) << None
    story >> msg.ReturnSlot("a", 1, copied=True) << None
    assert story.state.copies == {"a": 60}
    story >> ask("b", "g1", 60) << to("b", msg.SlotGranted(1, 0))
    story >> msg.ReturnSlot("b", 1) << None
    story >> msg.ReturnCopy("a") << None
    story >> ask("b", "g1", 60) << to("b", msg.SlotGranted(1, 60))
    assert story.state.copies_bytes() == 60


def test_slots_granted_together_share_the_host_ram() -> None:
    story = ram(100)
    story >> msg.RequestSlot("c", 1, "down", ("g0", "g1")) << to("c", msg.SlotGranted(1))
    story >> ask("a", "g0", 60) << None
    story >> ask("b", "g1", 60) << None
    both = [*to("a", msg.SlotGranted(1, 60)), *to("b", msg.SlotGranted(1, 0))]
    story >> msg.ReturnSlot("c", 1) << both


def test_what_was_granted_and_not_used_and_whose_holder_is_lost_is_free() -> None:
    story = ram(100)
    story >> ask("a", "g0", 60) << to("a", msg.SlotGranted(1, 60))
    story >> msg.ReturnSlot("a", 1) << None
    assert story.state.copies_bytes() == 0
    story >> msg.RequestSlot("a", 2, "down", ("g0",), 60) << to("a", msg.SlotGranted(2, 60))
    story >> msg.ReturnSlot("a", 2, copied=True) << None
    story >> msg.HolderLost("a") << None
    assert story.state.copies_bytes() == 0


@pytest.mark.parametrize(("given", "allowed"), [(None, 50), (0, 0), (70, 70)])
def test_half_of_the_hosts_ram_where_nothing_else_is_said(given: int | None, allowed: int) -> None:
    config = VllamaConfig(sleep_ram_max_bytes=given)
    assert to_broker_policy(config, ram_total_bytes=100).sleep_ram_max_bytes == allowed
