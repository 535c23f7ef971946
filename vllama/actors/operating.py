"""What an operator asks for beside start, stop and sleep: restart, another look at models.yaml, an engine's log."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllama.actors.system import CommandResult, System
from vllama.errors import ModelUnknown
from vllama.host.logs import last_lines, log_path, read_span, size_of

READ_BYTES_MAX = 2**20


async def restart(system: System, name: str) -> CommandResult:
    """Stopped, whatever it was doing, and started again: with the settings of now. Raises VllamaError."""
    stopped = await system.command("stop", name)
    return await system.command("start", stopped.model)


async def reload(system: System) -> dict[str, Any]:
    """models.yaml is read now, not within a second: what is wrong with it, and which engines need a restart for it."""
    await system.catalog.reload()
    needed = {view.model: list(view.restart_needed) for view in system.ps() if view.restart_needed}
    return {"problem": system.problem, "restart_needed": needed}


@dataclass
class LogReader:
    """The log of a model's engine, from its last lines on; the log of its next engine follows it."""

    system: System
    model: str
    path: Path
    offset: int = 0

    @classmethod
    async def of(cls, system: System, name: str) -> "LogReader":
        """Raises ModelUnknown for a name that means none, or whose model has never run."""
        model = (await system.route(name)).model
        path = _current(system, model) or await asyncio.to_thread(_latest, system.config.logs_dir, model)
        if path is None:
            raise ModelUnknown(f"{model} has no log yet: `vllama start {model}` begins one", model=model)
        return cls(system, model, path)

    async def last(self, lines: int) -> bytes:
        """The last lines; reading goes on behind them."""
        text, self.offset = await asyncio.to_thread(last_lines, self.path, lines)
        return text

    async def more(self) -> bytes:
        """What has been written since; b"" when there is nothing yet."""
        path = _current(self.system, self.model)
        if path is not None and path != self.path:
            self.path, self.offset = path, 0
        if await asyncio.to_thread(size_of, self.path) < self.offset:  # it was cut
            self.offset = 0
        text = await asyncio.to_thread(read_span, self.path, self.offset, READ_BYTES_MAX)
        self.offset += len(text)
        return text


def _current(system: System, model: str) -> Path | None:
    state = system.journal.states.instance(model)
    return Path(state.log) if state is not None and state.log else None


def _latest(folder: Path, model: str) -> Path | None:
    """The log of an earlier server's engine: the newest of this name."""
    stem = log_path(folder, model, 0).name.removesuffix("0.log")
    found = [path for path in folder.glob("*.log") if path.name.rpartition("_")[0] + "_" == stem]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
