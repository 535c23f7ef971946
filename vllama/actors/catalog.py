"""What can be served: the cache's models, the entries of models.yaml, and the names of both.

Looked at again every second in a thread, never on the path of a request for a model that is known. A file that cannot be
read, or is wrong, changes nothing: what was good last stays, and `problem` says what is wrong.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from vllama.config import ModelConfig, VllamaConfig, load_models, revisions_of
from vllama.errors import ConfigError, HostUnavailable
from vllama.host.host import Host, ModelFiles
from vllama.names import Names

LOOK_S = 1.0
LOOK_S_MAX = 10.0
LOOK_PART = 0.01  # of one thread's time: a huge cache on a slow disk is looked at less often
# Flags that make another kind of a model than its architecture says.
RUNNERS = frozenset({"runner", "convert", "task"})

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]
OnChange = Callable[[frozenset[str]], None]


class Catalog:
    """One writer: `refresh` and `reload`, one at a time each; everybody else reads."""

    def __init__(
        self,
        host: Host,
        config: VllamaConfig,
        configs: Mapping[str, ModelConfig],
        on_change: OnChange,
        on_problem: Callable[[str], None],
    ) -> None:
        self.models: tuple[ModelFiles, ...] = ()
        self.files: Mapping[str, ModelFiles] = {}
        self.configs = dict(configs)
        self.names = Names()
        self.version = 0  # of what names mean and what models do
        self._kinds: dict[str, str] = {}  # of this version
        self.problem = ""
        self._host = host
        self._path = config.models_file
        self._stamp: Stamp | None = None
        self._on_change = on_change
        self._on_problem = on_problem
        self._scanned = asyncio.Event()
        self._scanning = asyncio.Lock()
        self._loading = asyncio.Lock()
        self._scans = 0

    def of(self, model: str) -> ModelConfig:
        """The entry of a model, by its id."""
        return self.configs.get(model) or ModelConfig()

    def kind_of(self, model: str) -> str:
        """What a model surely does; "" where its entry tells vLLM to run it as something else."""
        if (kind := self._kinds.get(model)) is not None:
            return kind
        files = self.files.get(model)
        if files is None:
            return ""
        given = {name.strip().lstrip("-").replace("_", "-") for name in self.of(model).extra_args}
        kind = self._kinds[model] = "" if given & RUNNERS else files.kind
        return kind

    async def ready(self) -> None:
        """Returns when the cache has been looked at once."""
        if not self._scanned.is_set():
            await self.refresh()

    async def watch(self) -> None:
        """Look again, for ever."""
        while True:
            begun, version = time.monotonic(), self.version
            try:
                await self.refresh()
                await self.reload()
            except HostUnavailable as error:
                log.warning("the model cache cannot be looked at: %s", error)
            took_s = time.monotonic() - begun if version == self.version else 0.0  # what is new is read once
            await asyncio.sleep(min(max(LOOK_S, took_s / LOOK_PART), LOOK_S_MAX))

    async def refresh(self) -> None:
        """What the cache has now. Who comes while a scan runs shares the next one."""
        wanted = self._scans + (2 if self._scanning.locked() else 1)
        async with self._scanning:
            if self._scans >= wanted:
                return
            models = await self._host.models(revisions_of(self.configs))
            self._scans += 1
            if models == self.models and self._scanned.is_set():
                return
            before, self.models = self.files, models
            self.files = {files.id: files for files in models}
            self._rename()
            self._scanned.set()
        self._on_change(
            frozenset(name for name, files in self.files.items() if before.get(name, files) != files)
        )

    async def reload(self) -> None:
        """models.yaml as it is now, if it has changed. Models whose entry is as before are not touched."""
        async with self._loading:
            stamp = await asyncio.to_thread(_stamp_of, self._path)
            if stamp == self._stamp:
                return
            try:
                configs = await asyncio.to_thread(load_models, self._path)
            except ConfigError as error:
                self._stamp = stamp
                self._problem_is(error.message)
                return
            self._stamp = stamp
            self._problem_is("")
            before, self.configs = self.configs, configs
            changed = frozenset(
                name
                for name in before.keys() | configs.keys()
                if before.get(name, ModelConfig()) != configs.get(name, ModelConfig())
            )
            if revisions_of(before) != revisions_of(configs):
                await self.refresh()
            if changed:
                self._rename()
                self._on_change(changed)

    def _rename(self) -> None:
        self.names = Names(self.files, self.configs)
        self._kinds.clear()
        self.version += 1

    def _problem_is(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self._on_problem(problem)


def _stamp_of(path: Path) -> Stamp | None:
    """What changes whenever the file does; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
