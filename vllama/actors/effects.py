"""Runs the slow effects on a Host: each gives exactly one outcome, failure included.

What a Host answers becomes an outcome here and nowhere else. An engine's exit is told by the host's events alone, once a launch.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from vllama.actors.calibration import Calibration
from vllama.actors.core import effects as fx
from vllama.actors.core.messages import (
    Calibrate,
    DeviceMeasured,
    EngineAsleep,
    EngineExited,
    EngineLaunched,
    EngineReady,
    EngineUnready,
    EngineWeighed,
    Measured,
    SleepFailed,
)
from vllama.config import ModelConfig, VllamaConfig
from vllama.errors import ConfigError, HostUnavailable, LaunchError
from vllama.host.command import launch_spec
from vllama.host.engine import Engine, EngineFault
from vllama.host.host import DeviceInfo, Host, HostSample, ModelFiles

log = logging.getLogger("vllama.actors")

WAKE_BYTES_PER_S = 0.2e9  # the slowest disk that a wake or sleep is given time for
WARM_UP_TIMEOUT_S = 300.0
# A GPU's memory may come back after the answer to /sleep; what has not by then would be booked as the sleeper's own.
BACK_PART = 0.75  # of the footprint: no more is waited for
BACK_PART_LEAST = 0.25  # with so much back, and no change for a while, the rest is the sleeper's
SETTLED_S = 0.5
BACK_TIMEOUT_S = 5.0
BACK_POLL_S = 0.05
NOISE_BYTES = 2**25

Tell = Callable[[str, object, int], None]


class Effects:
    """The hands' side of the actors: which model is which launch, and what each effect came to."""

    def __init__(
        self,
        host: Host,
        config: VllamaConfig,
        tell: Tell,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._host = host
        self._config = config
        self._tell = tell
        self._spawn = spawn
        self._models: dict[str, tuple[ModelFiles, ModelConfig]] = {}
        self._engines: dict[str, Engine] = {}  # by model
        self._owners: dict[str, tuple[str, int]] = {}  # launch_id -> model, run
        self._launching: dict[tuple[str, int], asyncio.Event] = {}
        self._ports: dict[str, int] = {}
        self._residues: dict[str, int] = {}  # by model: what it held the last time it slept on a GPU
        self.devices: dict[str, DeviceInfo] = {}
        self.calibration = Calibration(config, self.devices)

    def register(self, files: ModelFiles, model_config: ModelConfig) -> None:
        """A model that may be launched from now on."""
        self._models[files.id] = (files, model_config)

    def start(self, actor: str, effect: fx.Effect, cause: int) -> None:
        """Run one slow effect of this actor; its outcome is told to the actor."""
        work: Callable[[], Coroutine[Any, Any, None]]
        match effect:
            case fx.Launch():
                self._launching[actor, effect.run] = asyncio.Event()
                work = partial(self._launch, actor, self._models[actor], effect, cause)
            case fx.AwaitReady(run):
                work = partial(self._await_ready, actor, run, cause)
            case fx.Weigh(run):
                work = partial(self._weigh, actor, run, cause)
            case fx.WakeEngine():
                work = partial(self._wake, actor, effect, cause)
            case fx.SleepEngine():
                work = partial(self._sleep, actor, effect, cause)
            case fx.StopEngine(run):
                work = partial(self._kill, actor, run, self._config.stop_grace_s, cause)
            case fx.Kill(run):
                work = partial(self._kill, actor, run, 0.0, cause)
            case fx.Measure(epoch):
                work = partial(self._measure, actor, epoch, cause)
            case _:
                raise TypeError(f"no slow effect: {effect!r}")
        self._spawn(self._finish(actor, effect, cause, work))

    async def _finish(
        self, actor: str, effect: fx.Effect, cause: int, work: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Also a bug has an outcome: the effect has failed, and the server lives on."""
        try:
            await work()
        except Exception as error:
            log.critical("bug in %r of %s: %r", effect, actor, error, exc_info=error)
            if (outcome := _failure(effect, repr(error))) is not None:
                self._tell(actor, outcome, cause)

    async def watch(self, note: Callable[[str, str], None]) -> None:
        """Turn the host's events into outcomes, for ever. `note(kind, detail)` gets what no decision hangs on."""
        after = 0
        while True:
            try:
                events = await self._host.events(after, 30.0)
            except Exception as error:
                log.warning("the host's events cannot be read: %r", error)
                await asyncio.sleep(1.0)
                continue
            for event in events:
                after = event.seq
                if event.kind != "exited":
                    note(event.kind, event.detail)
                elif (owner := self._owners.pop(event.launch_id, None)) is not None:
                    model, run = owner
                    self._tell(model, EngineExited(run, event.code, event.why, event.log_tail), 0)

    async def _launch(
        self, model: str, about: tuple[ModelFiles, ModelConfig], effect: fx.Launch, cause: int
    ) -> None:
        run, launch_id = effect.run, _launch_id(model, effect.run)
        files, model_config = about
        devices = tuple(self.devices[d] for d in effect.devices)
        port = self._ports.get(model, 0)
        self._owners[launch_id] = (model, run)
        try:
            lease = effect.lease_bytes
            known = self.calibration.launching(run, files, model_config, devices, lease)
            spec = launch_spec(
                self._config,
                model_config,
                files,
                devices,
                lease,
                launch_id,
                port,
                sleep_mode=effect.sleep_mode,
                footprint=known,
            )
            proc = await self._host.launch(spec)
        except (LaunchError, HostUnavailable, ConfigError) as error:
            if self._owners.pop(launch_id, None) is not None:
                self._tell(model, EngineExited(run, None, "launch", error.message), cause)
        else:
            self._ports[model] = proc.port
            self._engines[model] = Engine(self._host, launch_id, files)
            waited_s = round(proc.waited_s, 3)
            launched = EngineLaunched(
                run, proc.pid, proc.port, proc.log, proc.mode, proc.mode_reason, waited_s
            )
            self._tell(model, launched, cause)
        finally:
            self._launching.pop((model, run)).set()

    async def _await_ready(self, model: str, run: int, cause: int) -> None:
        engine, config = self._engines[model], self._config
        try:
            steps = dict(await engine.ready(config.start_timeout_s, config.start_quiet_s))
            steps |= await engine.warm_up(WARM_UP_TIMEOUT_S)
        except EngineFault as fault:
            if fault.reason != "exited":  # its exit is told by the host, with the log's last lines
                self._tell(model, EngineUnready(run, fault.reason), cause)
        else:
            self.calibration.up(model, run)
            self._tell(model, EngineReady(run, tuple(steps.items())), cause)

    async def _wake(self, model: str, effect: fx.WakeEngine, cause: int) -> None:
        engine = self._engines[model]
        try:
            steps = await engine.wake(effect.level, self._bound(effect.footprint_bytes))
        except EngineFault as fault:
            self._tell(model, EngineUnready(effect.run, fault.reason), cause)
        else:
            self.calibration.up(model, effect.run)
            self._tell(model, EngineReady(effect.run, tuple(steps.items())), cause)

    async def _weigh(self, model: str, run: int, cause: int) -> None:
        footprint = await self._used_by(_launch_id(model, run))
        need = self.calibration.weighed(model, run, footprint)
        self._tell(model, EngineWeighed(run, footprint), cause)
        if need is not None:
            self._tell(model, Calibrate(need), cause)
            await self.calibration.keep()

    async def _sleep(self, model: str, effect: fx.SleepEngine, cause: int) -> None:
        engine, begun = self._engines[model], time.monotonic()
        self.calibration.down(model)
        try:
            await engine.sleep(effect.level, self._bound(effect.footprint_bytes))
            residue = await self._residue(model, engine.launch_id, effect.footprint_bytes)
        except EngineFault as fault:
            self._tell(model, SleepFailed(effect.run, fault.reason), cause)
        else:
            took_s = round(time.monotonic() - begun, 4)
            freed = max(effect.footprint_bytes - residue, 0) if effect.footprint_bytes else 0
            self._tell(model, EngineAsleep(effect.run, effect.level, residue, freed, took_s), cause)
            self.calibration.slept(model, effect.run, effect.level, residue)
            await self.calibration.keep()

    async def _kill(self, model: str, run: int, grace_s: float, cause: int) -> None:
        self.calibration.down(model)
        if (launching := self._launching.get((model, run))) is not None:
            await launching.wait()
        try:
            await self._host.kill(_launch_id(model, run), grace_s)
        except HostUnavailable as error:
            if self._owners.pop(_launch_id(model, run), None) is not None:
                self._tell(model, EngineExited(run, None, "lost", error.message), cause)

    async def _measure(self, actor: str, epoch: int, cause: int) -> None:
        sample = await self._sample()
        if sample is None:
            self._tell(actor, Measured(epoch, ()), cause)
            return
        devices = tuple(
            DeviceMeasured(d.id, d.free_bytes, d.shared_bytes, self._by_model(dict(d.used_by)))
            for d in sample.devices
        )
        self._tell(actor, Measured(epoch, devices), cause)

    def _by_model(self, used_by: dict[str, int]) -> tuple[tuple[str, int], ...]:
        totals: dict[str, int] = {}
        for launch_id, size in used_by.items():
            model = _model_of(launch_id)
            totals[model] = totals.get(model, 0) + size
        return tuple(sorted(totals.items()))

    async def _used_by(self, launch_id: str) -> int:
        """What the engine's tree takes now, on the device where it takes most; 0 when it cannot be measured."""
        try:
            return max((await self._host.weigh(launch_id)).values(), default=0)
        except HostUnavailable:
            return 0

    async def _residue(self, model: str, launch_id: str, footprint: int) -> int:
        """What a sleeper holds, as soon as no more of its memory seems to be on the way."""
        used = await self._used_by(launch_id)
        if not any(device.kind == "cuda" for device in self.devices.values()):
            return used
        begun = changed = time.monotonic()
        known = self._residues.get(model, 0) + NOISE_BYTES
        while used > max(known, (1 - BACK_PART) * footprint):
            settled = used <= (1 - BACK_PART_LEAST) * footprint and time.monotonic() - changed >= SETTLED_S
            if settled or time.monotonic() - begun >= BACK_TIMEOUT_S:
                break
            await asyncio.sleep(BACK_POLL_S)
            before, used = used, await self._used_by(launch_id)
            if abs(used - before) > NOISE_BYTES:
                changed = time.monotonic()
        self._residues[model] = used
        return used

    async def _sample(self) -> HostSample | None:
        try:
            return await self._host.sample()
        except HostUnavailable:
            return None

    def _bound(self, size: int) -> float:
        return self._config.wake_timeout_s + size / WAKE_BYTES_PER_S


def _failure(effect: fx.Effect, why: str) -> object | None:
    """The outcome of an effect that met a bug."""
    match effect:
        case fx.Launch(run):
            return EngineExited(run, None, "launch", why)
        case fx.AwaitReady(run) | fx.WakeEngine(run):
            return EngineUnready(run, why)
        case fx.SleepEngine(run):
            return SleepFailed(run, why)
        case fx.Measure(epoch):
            return Measured(epoch, ())
    return None


def _launch_id(model: str, run: int) -> str:
    return f"{model}#{run}"


def _model_of(launch_id: str) -> str:
    return re.sub(r"#\d+$", "", launch_id)
