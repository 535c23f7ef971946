"""Stories of vLLM's sleep mode on GPUs: without it an engine only stops; and it may be what a start runs out of memory by."""

import pytest

from tests.actors.play import Story, books, play, to_broker
from vllama.actors.core import effects as fx
from vllama.actors.core import messages as msg
from vllama.actors.core.instance_state import State
from vllama.actors.core.levels import notes_on
from vllama.actors.translate import to_policy, to_settings
from vllama.config import ModelConfig, VllamaConfig
from vllama.host.host import ModelFiles

GPU = ("g0",)
NONE_LEFT = msg.Refusal("no_memory", "none left", 10.0)
FILES = ModelFiles("o/m", "/m", "r", "chat", "X", 1, 512, {}, 0.0)


def model(**policy: object) -> Story:
    return play(State(model="m", need=msg.Need(100, 50), policy=msg.Policy(on_gpu=True, **policy)))  # type: ignore[arg-type]


def lease(number: int, *, squeeze: bool = False) -> msg.RequestLease:
    return msg.RequestLease("m", number, 100, 50, (), True, squeeze)


def launched(story: Story, number: int) -> fx.Launch:
    """The lease and the slot are granted: how it is started."""
    story >> msg.LeaseGranted(number, 100, GPU)
    story.skip() >> msg.SlotGranted(story.state.slot)
    (launch,) = story._todo or []
    assert isinstance(launch, fx.Launch)
    story.skip()
    return launch


def out_of_memory(story: Story, run: int) -> Story:
    story >> msg.EngineExited(run, 1, "oom", "CUDA out of memory")
    assert fx.TellBroker(lease(run * 2, squeeze=True)) in (story._todo or [])
    return story.skip()


def without(story: Story | None = None) -> Story:
    """One start ran out of memory with nobody left to evict; the next is under way without sleep mode."""
    story = story or model()
    story >> msg.Acquire(1) << to_broker(lease(1))
    assert launched(story, 1).sleep_mode
    out_of_memory(story, 1) >> msg.LeaseRefused(2, NONE_LEFT, exhausted=True) << to_broker(lease(3))
    assert not launched(story, 3).sleep_mode
    return story


def up(story: Story, run: int = 2) -> Story:
    story >> msg.EngineReady(run)
    assert fx.Admit(1, run, "cold") in (story._todo or [])
    story.skip() >> msg.Release(1) << None
    return story


def test_a_load_that_sleep_mode_made_too_big_is_tried_once_without_and_then_only_stops() -> None:
    story = up(without())
    assert story.state.failures == ()
    assert "level 3 only" in notes_on(story.state)[0]
    story >> msg.Sleep(9, 1) << to_broker(msg.RequestSlot("m", 3, "down", GPU))
    story >> msg.SlotGranted(3) << fx.StopEngine(2)
    story >> msg.EngineExited(2, 0)
    (reply,) = [effect for effect in story._todo or [] if isinstance(effect, fx.Reply)]
    assert reply.phase == "stopped"
    assert "level 3 only" in reply.note
    story.skip() >> msg.Acquire(1) << to_broker(lease(4))
    assert not launched(story, 4).sleep_mode  # it is remembered


def test_where_it_does_not_help_the_caller_hears_of_the_memory_and_sleep_mode_is_back() -> None:
    story = out_of_memory(without(), 2)
    story >> msg.LeaseRefused(4, NONE_LEFT, exhausted=True) << fx.Refuse(1, NONE_LEFT)
    story >> msg.Acquire(2) << to_broker(lease(5))
    assert launched(story, 5).sleep_mode
    assert notes_on(story.state) == ()


@pytest.mark.parametrize(("on_gpu", "exhausted"), [(True, False), (False, True)])
def test_it_is_not_tried_where_others_hold_the_memory_or_on_cpu(on_gpu: bool, exhausted: bool) -> None:
    story = model()
    story.state.policy = msg.Policy(on_gpu=on_gpu)
    story >> msg.Acquire(1) << to_broker(lease(1))
    launched(story, 1)
    out_of_memory(story, 1) >> msg.LeaseRefused(2, NONE_LEFT, exhausted) << fx.Refuse(1, NONE_LEFT)


def test_another_configuration_is_tried_with_sleep_mode_again() -> None:
    story = up(without())
    story >> msg.Stop(9)
    story.skip() >> msg.SlotGranted(3) << fx.StopEngine(2)
    story >> msg.EngineExited(2, 0)
    story.skip() >> msg.Configure(story.state.policy, msg.Need(90, 40), (("dtype", "x"),)) << None
    story >> msg.Acquire(1)
    story.skip()
    assert launched(story, 4).sleep_mode


@pytest.mark.parametrize(
    ("levels", "sleep_mode"),
    [((2, 2), True), ((3, 2), True), ((1, 3), True), ((3, 3), False)],
)
def test_sleep_mode_is_on_unless_the_model_is_only_ever_stopped(
    levels: tuple[int, int], sleep_mode: bool
) -> None:
    story = model(sleep_level=levels[0], unload_mode=levels[1])
    story >> msg.Acquire(1) << to_broker(lease(1))
    assert launched(story, 1).sleep_mode is sleep_mode
    up(story, 1)
    assert story.state.safe_level(2) == (2 if sleep_mode else 3)


def test_the_broker_says_when_nobody_is_left_to_evict() -> None:
    story = books()
    story >> msg.DeviceFound("g0", "cuda", 1000) << None
    story >> lease(1, squeeze=True)
    story.skip() >> msg.Measured(story.state.epoch, (msg.DeviceMeasured("g0", 1000, 0, ()),))
    refused = [e.message for e in story._todo or [] if isinstance(e, fx.TellInstance)]
    assert [m.exhausted for m in refused if isinstance(m, msg.LeaseRefused)] == [True]


def test_a_models_own_unload_mode_wins_and_holds_at_once() -> None:
    config, entry = VllamaConfig(unload_mode=1), ModelConfig(unload_mode=3)
    assert to_policy(config, entry, on_gpu=True).unload_mode == 3
    assert to_policy(config, ModelConfig(), on_gpu=True).unload_mode == 1
    assert to_settings(config, FILES, entry) == to_settings(config, FILES, ModelConfig())
    only_stopped = ModelConfig(unload_mode=3, sleep_level=3)
    assert to_settings(config, FILES, only_stopped) != to_settings(config, FILES, ModelConfig())


def test_idle_goes_to_the_models_unload_mode() -> None:
    story = model(unload_mode=3, unload_timeout=10.0)
    story >> msg.Acquire(1) << to_broker(lease(1))
    launched(story, 1)
    up(story, 1).later(10) >> msg.TimerDue(story.state.timer)
    story.skip() >> msg.SlotGranted(story.state.slot) << fx.StopEngine(1)
