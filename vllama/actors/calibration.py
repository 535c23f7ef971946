"""From what was measured to what is asked for: which engine was weighed, what its model needs from now on."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from vllama.actors.core import messages as msg
from vllama.actors.footprints import Footprints, Key
from vllama.actors.placement import need_of
from vllama.actors.translate import launch_settings
from vllama.config import ModelConfig, VllamaConfig
from vllama.host.estimate import Footprint, calibrated, estimate, kv_bytes_for_lease
from vllama.host.host import DeviceInfo, ModelFiles


@dataclass(frozen=True)
class _Launched:
    """What an engine was started with."""

    run: int
    key: Key
    files: ModelFiles
    model_config: ModelConfig
    devices: tuple[str, ...]
    kv_bytes: int


class Calibration:
    """One writer: the loop."""

    def __init__(self, config: VllamaConfig, devices: Mapping[str, DeviceInfo]) -> None:
        self._config = config
        self._devices = devices
        self._footprints = Footprints(config.footprints_file)
        self._launched: dict[str, _Launched] = {}
        self._up: dict[str, int] = {}  # the run that is awake and stays so
        self._saving = False

    async def recall(self, versions: Mapping[str, str]) -> str:
        """Read what earlier servers measured; what is wrong with the file, or ""."""
        return await asyncio.to_thread(self._footprints.load, dict(versions))

    def need(self, files: ModelFiles, model_config: ModelConfig) -> msg.Need:
        """What a start needs, as far as it was measured as measured. Raises ConfigError."""
        found = self._footprints.of(self._key(files, model_config))
        return need_of(files, model_config, self._config, self._devices.values(), found)

    def of(self, files: ModelFiles, model_config: ModelConfig) -> Mapping[str, Footprint]:
        """What was measured, by device."""
        return self._footprints.of(self._key(files, model_config))

    def launching(
        self,
        run: int,
        files: ModelFiles,
        model_config: ModelConfig,
        devices: Collection[DeviceInfo],
        lease: int,
    ) -> Footprint | None:
        """An engine is about to start under a lease; what the like of it took before, on the first of its devices."""
        key, first = self._key(files, model_config), next(iter(devices))
        found = self._footprints.of(key).get(first.id)
        size = calibrated(estimate(files, model_config, self._config, first), found, model_config, first)
        ids = tuple(device.id for device in devices)
        kv_bytes = kv_bytes_for_lease(size, lease)
        self._launched[files.id] = _Launched(run, key, files, model_config, ids, kv_bytes)
        return found

    def up(self, model: str, run: int) -> None:
        """This engine is awake; what it weighs from now on is its footprint."""
        self._up[model] = run

    def down(self, model: str) -> None:
        """It is on its way down."""
        self._up.pop(model, None)

    def weighed(self, model: str, run: int, size: int) -> msg.Need | None:
        """An engine was weighed; the model's need, if it was one that is awake."""
        launched = self._launched.get(model)
        if not size or launched is None or launched.run != run or self._up.get(model) != run:
            return None
        self._footprints.awake(launched.key, launched.devices, size, launched.kv_bytes)
        return self.need(launched.files, launched.model_config)

    def slept(self, model: str, run: int, level: int, residue: int) -> None:
        """A sleeper was weighed."""
        launched = self._launched.get(model)
        if residue and launched is not None and launched.run == run:
            self._footprints.asleep(launched.key, launched.devices, level, residue)

    async def keep(self) -> None:
        """Write what has changed, until nothing has; one writer at a time."""
        if self._saving:
            return
        self._saving = True
        try:
            while text := self._footprints.take_news():
                await asyncio.to_thread(self._footprints.write, text)
        finally:
            self._saving = False

    def _key(self, files: ModelFiles, model_config: ModelConfig) -> Key:
        config = self._config
        return self._footprints.key(
            files.id,
            launch_settings(config, files, model_config)
            | {"server": [config.kv_default_max, config.engine_python, config.engine_entry]},
        )
