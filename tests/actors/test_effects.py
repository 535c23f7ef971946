"""Each effect has one outcome, also when what runs it meets a bug."""

import asyncio

import pytest

from vllama.actors.core import effects as fx
from vllama.actors.core import messages as msg
from vllama.actors.effects import Effects
from vllama.config import ModelConfig, load_config
from vllama.host.host import DeviceInfo, LaunchSpec, ModelFiles, ProcInfo

FILES = ModelFiles("m", "/none", "0", "chat", "X", 1, 1, {}, 0.0)


class BuggyHost:
    """A host whose every answer is a bug."""

    def __getattr__(self, name: str):
        async def call(*_: object) -> object:
            raise ZeroDivisionError(name)

        return call


class LateHost:
    """Its preload kept the launch waiting."""

    async def launch(self, spec: LaunchSpec) -> ProcInfo:
        return ProcInfo(spec.launch_id, spec.model, 7, 33300, "/log", "exec", "it is broken", 12.3456)


def outcome_of(effect: fx.Effect, host: object = None) -> list[object]:
    told: list[object] = []

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            config = load_config({}, env={})
            effects = Effects(
                host or BuggyHost(), config, lambda _, message, __: told.append(message), tasks.create_task
            )
            effects.devices["cpu"] = DeviceInfo("cpu", "cpu", 0, "RAM", 2**30)
            effects.register(FILES, ModelConfig())
            effects.start("m", effect, 0)

    asyncio.run(run())
    return told


@pytest.mark.parametrize(
    ("effect", "kind"),
    [
        (fx.Launch(1, 2**30, ("cpu",)), msg.EngineExited),
        (fx.AwaitReady(1), msg.EngineUnready),
        (fx.WakeEngine(1, 2, 0), msg.EngineUnready),
        (fx.SleepEngine(1, 2, 0), msg.SleepFailed),
        (fx.Measure(7), msg.Measured),
    ],
)
def test_bug_in_an_effect_is_its_failure(effect: fx.Effect, kind: type) -> None:
    (outcome,) = outcome_of(effect)
    assert type(outcome) is kind


def test_a_launch_tells_what_it_waited_for_the_preload() -> None:
    (outcome,) = outcome_of(fx.Launch(1, 2**30, ("cpu",)), LateHost())
    assert outcome == msg.EngineLaunched(1, 7, 33300, "/log", "exec", "it is broken", 12.346)
