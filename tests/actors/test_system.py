"""System's own promises: it ends, whatever its effects still wait for; a bug in one actor's turn is that actor's."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from vllama.actors import StateManager, System
from vllama.actors.core import messages as msg
from vllama.config import load_config
from vllama.errors import ShuttingDown, VllamaError
from vllama.host.host import DeviceInfo, DeviceSample, HostInfo, HostSample, ModelFiles

FILES = ModelFiles("m", "/none", "0", "chat", "X", 1, 1, {}, 0.0)
RAM = DeviceInfo("cpu", "cpu", 0, "RAM", 2**33)


class StuckHost:
    """A host that begins every launch and ends none."""

    def __init__(self) -> None:
        self.launching = asyncio.Event()
        self.closed = False

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True

    async def describe(self) -> HostInfo:
        return HostInfo("here", "1", (RAM,), 2**33, {}, "off", "")

    async def models(self, revisions: Mapping[str, str]) -> tuple[ModelFiles, ...]:
        return (FILES,)

    async def sample(self) -> HostSample:
        return HostSample(0.0, (DeviceSample("cpu", 2**33, 2**33, {}),), 2**33)

    async def events(self, after: int, wait_s: float) -> tuple[object, ...]:
        await asyncio.Event().wait()
        return ()

    async def launch(self, spec: object) -> None:
        self.launching.set()
        await asyncio.Event().wait()


def test_shutdown_ends_though_an_effect_never_does(tmp_path: Path) -> None:
    async def run() -> None:
        host = StuckHost()
        config = load_config({"config_dir": str(tmp_path), "transformers_cache": str(tmp_path)}, env={})
        system = System(config, host)
        await system.start()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(refused(system))
            await host.launching.wait()
            hurry = asyncio.Event()
            hurry.set()
            await asyncio.wait_for(system.shutdown(hurry), 20)
        assert waiting.result() == "shutting_down"
        assert host.closed
        assert vars(system.journal.states) == vars(StateManager())  # all state is gone

    async def refused(system: System) -> str:
        try:
            await system.ensure_instance_running("m")
        except ShuttingDown as error:
            return error.code
        return "admitted"

    asyncio.run(run())


def test_what_is_known_is_told_though_the_disk_never_answers(tmp_path: Path) -> None:
    """`ps` and `info` are from memory; only who asks for the models themselves waits for the first look at the cache."""

    class StuckDisk(StuckHost):
        async def models(self, revisions: Mapping[str, str]) -> tuple[ModelFiles, ...]:
            await asyncio.Event().wait()
            return ()

    async def run() -> None:
        config = load_config({"config_dir": str(tmp_path), "transformers_cache": str(tmp_path)}, env={})
        system = System(config, StuckDisk())
        await system.start()
        info = await asyncio.wait_for(system.info(), 20)
        assert (info["models"], info["devices"]) == (0, system.devices())
        assert [device["id"] for device in system.devices()] == ["cpu"]
        assert system.ps() == ()
        await system.shutdown()

    asyncio.run(run())


def system_of(folder: Path, host: StuckHost) -> System:
    config = load_config({"config_dir": str(folder), "transformers_cache": str(folder)}, env={})
    return System(config, host)


def one_bug(system: System, name: str) -> None:
    """The next turn of this actor meets one."""
    actor = system._broker if name == "broker" else system._actors[name]
    decide = actor._decide

    def bug(*_: object) -> tuple[()]:
        raise ZeroDivisionError("a bug")

    actor._decide = bug
    actor.tell(msg.Replan() if name == "broker" else msg.TimerDue(0))
    actor._decide = decide


def test_a_bug_in_a_turn_is_told_to_who_waits_and_the_model_begins_anew(tmp_path: Path) -> None:
    async def run() -> None:
        host = StuckHost()
        system = system_of(tmp_path, host)
        await system.start()
        async with asyncio.TaskGroup() as group, asyncio.timeout(20):
            waiting = group.create_task(refusal(system))
            command = group.create_task(refusal(system, command=True))
            await host.launching.wait()
            host.launching.clear()
            one_bug(system, "m")
            assert (await waiting, await command) == ("internal_error", "internal_error")
            assert "InstanceReset" in {type(record.event).__name__ for record in system.journal.records()}
            again = group.create_task(refusal(system))
            await host.launching.wait()  # its lease and its slot had come back
            assert system.journal.fold() == system.journal.states
            assert not system.broken.is_set()
            hurry = asyncio.Event()
            hurry.set()
            await system.shutdown(hurry)
            assert await again == "shutting_down"

    async def refusal(system: System, *, command: bool = False) -> str:
        try:
            await (system.command("start", "m") if command else system.ensure_instance_running("m"))
        except VllamaError as error:
            return error.code
        return "admitted"

    asyncio.run(run())


def test_a_bug_in_the_brokers_turn_ends_the_server(tmp_path: Path) -> None:
    """Nobody can say any more what the books should be."""

    async def run() -> None:
        system = system_of(tmp_path, StuckHost())
        await system.start()
        one_bug(system, "broker")
        assert system.broken.is_set()
        await system.shutdown()

    asyncio.run(run())
