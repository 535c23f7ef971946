"""Every worker process of this server: who holds which batch, and what all of them must hear."""

import asyncio
import itertools
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

from vllama.actors.catalog import Catalog
from vllama.actors.core.batches import GiveBatch, Lend, Recall
from vllama.actors.desk import Desk
from vllama.actors.patience import until
from vllama.actors.workers import wire
from vllama.actors.workers.access import WorkerAccess
from vllama.actors.workers.teller import Adopt, Teller

Tell = Callable[[str, object], None]
Cells = list[tuple[tuple[str, str, int], list[float]]]


class Bank:
    """What the System has of workers. Without any it does nothing and costs nothing."""

    def __init__(
        self, desk: Desk, catalog: Catalog, numbers: Iterator[int], tell: Tell, quiet: asyncio.Event
    ) -> None:
        self.desk = desk
        self.tell = tell
        self.quiet = quiet  # set whenever a ticket or a batch has come back
        self.stopping = False
        self.answer_s = desk.config.worker_answer_s
        self.tellers: list[Teller] = []
        self.on_counted: Callable[[Cells], None] = lambda cells: None  # a worker's traffic
        self._catalog = catalog
        self._numbers = numbers
        self._wanted: dict[int, Teller] = {}  # batches that instances were asked for
        self._tasks: asyncio.TaskGroup

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._tasks.create_task(work)

    def open(
        self, sock: socket.socket, pid: int, adopt: Adopt, kill: Callable[[], None], access: WorkerAccess
    ) -> Teller:
        """A worker process has been started at the other end of this socket."""
        teller = Teller(self, sock, pid, adopt, kill)
        self.tellers.append(teller)
        config = self.desk.config.model_dump_json(exclude={"api_key", "control_key"}).encode()
        keys = (list(access.data_keys), list(access.control_keys))
        teller.say(wire.Setup(config, *keys, access.control_off))
        teller.say(self.names())
        if self.stopping:
            teller.say(wire.Stopping())
        return teller

    def forget(self, teller: Teller) -> None:
        self.tellers.remove(teller)

    # --- batches ------------------------------------------------------------------------------------------------------

    def lend(self, teller: Teller, model: str, count: int) -> None:
        """Ask the instance for a batch; its answer is GiveBatch."""
        number = next(self._numbers)
        next(itertools.islice(self._numbers, count - 2, None))  # the batch's asks are its own
        self._wanted[number] = teller
        self.tell(model, Lend(number, count))

    def perform(self, model: str, port: int, effect: GiveBatch | Recall) -> None:
        """What an instance wants done about batches; its engine is behind `port`."""
        if isinstance(effect, Recall):
            self.recall(effect.batches)
        else:
            self._wanted.pop(effect.batch).give(model, port, effect)

    def recall(self, batches: Iterable[int]) -> None:
        for teller in self.tellers:
            teller.recall(batches)

    def abort(self, asks: Iterable[int], batches: Iterable[int]) -> None:
        for teller in tuple(self.tellers):
            teller.abort(asks, batches)

    # --- all of them --------------------------------------------------------------------------------------------------

    def names(self) -> wire.Names:
        """The catalog as workers know it."""
        catalog = self._catalog
        models = []
        for files in catalog.models:
            entry = catalog.of(files.id)
            kind = catalog.kind_of(files.id)
            models.append(wire.Model(files.id, kind, list(entry.aliases), list(entry.lora)))
        return wire.Names(models)

    def rename(self) -> None:
        """The catalog has changed."""
        if self.tellers:
            names = self.names()
            for teller in self.tellers:
                teller.say(names)

    async def withdraw(self, hurry: asyncio.Event | None) -> None:
        """The server ends: nothing more is admitted. Returns when all that was is known here."""
        self.stopping = True
        for teller in self.tellers:
            teller.say(wire.Stopping())
            teller.recall(teller.ledger.batches())
        await until(self._all_back, self.quiet, self.answer_s + 1.0, hurry)

    def _all_back(self) -> bool:
        return not any(teller.ledger.batches() for teller in self.tellers)

    def busy(self) -> set[str]:
        """The models that serve requests admitted on batches."""
        return {model for teller in self.tellers for model in teller.ledger.out.values()}

    def abort_all(self) -> None:
        for teller in tuple(self.tellers):
            teller.abort(tuple(teller.ledger.out), ())

    def view(self) -> list[dict[str, int]]:
        """Each worker, for `info`."""
        return [{"pid": teller.pid, "in_flight": teller.in_flight} for teller in self.tellers]
