"""The fake world with worker processes: purses and ledgers over channels that are late, workers that die or hang.

What a worker and the system say to each other keeps its order and may take any time. A worker admits by itself on the batches
that it holds, and reports when it comes to it.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from tests.simulation.cast import Ask, Engine
from tests.simulation.world import World
from vllama.actors.actor import Actor
from vllama.actors.core import effects as fx
from vllama.actors.core import messages as msg
from vllama.actors.core.batches import GiveBatch, Lend, Recall
from vllama.actors.core.ledger import Ledger
from vllama.actors.core.purse import Batch, Purse

HUNG_S = 10.0


class Worker:
    """One worker process: its purse, the system's ledger of it, and what is on its way between them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.alive = True
        self.hung = False
        self.purse = Purse()
        self.ledger = Ledger()
        self.inbox: deque[Callable[[], None]] = deque()
        self.outbox: deque[Callable[[], None]] = deque()
        self.asks: set[int] = set()  # in flight in this process, whichever way they were admitted


class WorkersWorld(World):
    """Half of the clients come through workers."""

    def __init__(self, seed: int, *, configuring: bool = False) -> None:
        super().__init__(seed, configuring=configuring)
        self.deaths = self.rng.choice((0.0, 0.0, 0.02, 0.1))
        self.hangs = self.rng.choice((0.0, 0.0, 0.02))
        self.batch = self.rng.choice((1, 2, 8))
        self.workers = [Worker(number) for number in range(self.rng.choice((1, 2, 3)))]
        self.wanted: dict[int, Worker] = {}  # batches asked for: who shall have them
        self.owner: dict[int, Worker] = {}  # asks that came through a worker
        self.on_batch: set[int] = set()

    def total_workers(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.alive]

    # --- clients ------------------------------------------------------------------------------------------------------

    def client(self) -> None:
        alive = [worker for worker in self.workers if worker.alive and not worker.hung]
        if self.closing or not alive or self.rng.random() < 0.3:
            super().client()
            return
        worker, model = self.rng.choice(alive), self.rng.choice(tuple(self.models))
        self.visit(worker, model)
        for _ in range(self.rng.choice((0, 3, 10))):  # and more of the same, while it is awake
            self.after(self.rng.expovariate(0.3), lambda: self.visit(worker, model))

    def visit(self, worker: Worker, model: str) -> None:
        if not worker.alive or worker.hung or self.closing:
            return
        taken = worker.purse.take(model, "r")
        if taken is None:
            self.next_id += 1
            ask = self.next_id
            self.asks[ask] = Ask(model)
            self.owner[ask] = worker
            worker.asks.add(ask)
            self.send(worker.outbox, lambda: self.acquire(model, ask))
        else:
            ask, batch = taken
            engine = self.engines[model]
            if engine.run == batch.run and engine.state not in ("awake", "dead", "stopping"):
                self.broken(
                    f"worker {worker.number} admits ask {ask} of {batch} while its engine is {engine}"
                )
            if ask in self.asks:
                self.broken(f"ask {ask} is taken twice")
            self.asks[ask] = Ask(model, answered=True, engine=engine if engine.run == batch.run else None)
            self.owner[ask] = worker
            self.on_batch.add(ask)
            worker.asks.add(ask)
            self.after(self.rng.expovariate(self.rng.choice((1.0, 20.0, 0.05))), lambda: self.finish(ask))
            self.tell_soon(worker)
        if self.rng.random() < self.deaths:
            self.after(self.rng.random(), lambda: self.die(worker))
        elif self.rng.random() < self.hangs:
            worker.hung = True
            self.after(HUNG_S, lambda: self.die(worker))

    def acquire(self, model: str, ask: int) -> None:
        """A worker's request arrives; the edge lets nothing in any more once the server ends."""
        if self.closing:
            self.refused(ask)
        else:
            self.mail(model, msg.Acquire(ask))

    def finish(self, ask: int) -> None:
        worker = self.owner.get(ask)
        if worker is None:
            super().finish(ask)
            return
        record = self.asks[ask]
        if record.left or worker.hung:
            return
        record.left = True
        worker.asks.discard(ask)
        if ask in self.on_batch:
            worker.purse.end(ask)
            self.tell_soon(worker)
        else:
            self.send(worker.outbox, lambda: self.mail(record.model, msg.Release(ask)))

    def admitted(self, actor: str, effect: fx.Admit) -> None:
        super().admitted(actor, effect)
        worker = self.owner.get(effect.ask)
        if worker is not None and worker.alive:
            self.offer(worker, actor)

    # --- the channels -------------------------------------------------------------------------------------------------

    def send(self, box: deque[Callable[[], None]], what: Callable[[], None]) -> None:
        box.append(what)
        self.after(self.rng.random() * self.rng.choice((0.001, 0.1, 1.0)), lambda: self.receive(box))

    def receive(self, box: deque[Callable[[], None]]) -> None:
        """The first of what is under way arrives: messages overtake nothing."""
        reader = next((worker for worker in self.workers if worker.inbox is box), None)
        if box and not (reader is not None and reader.hung):
            box.popleft()()

    def tell_soon(self, worker: Worker) -> None:
        self.after(self.rng.random() * self.rng.choice((0.0, 0.1, 1.0)), lambda: self.tell(worker))

    def tell(self, worker: Worker) -> None:
        if worker.alive and not worker.hung and worker.purse.untold:
            used, ended = worker.purse.report()
            self.send(worker.outbox, lambda: self.reported(worker, used, ended))

    def reported(self, worker: Worker, used: list[Any], ended: list[int]) -> None:
        for model, message in worker.ledger.report(used, ended):
            self.mail(model, message)
        for model in {self.asks[number].model for number, _ in used}:
            self.offer(worker, model)

    def offer(self, worker: Worker, model: str) -> None:
        """The system keeps the worker in tickets."""
        if worker.ledger.unused(model) * 2 <= self.batch:
            number = self.next_id + 1
            self.next_id += self.batch
            self.wanted[number] = worker
            self.mail(model, Lend(number, self.batch))

    # --- effects ------------------------------------------------------------------------------------------------------

    def perform(self, actor: Actor[Any], effect: Any, cause: int) -> None:
        match effect:
            case GiveBatch(number, count, run):
                self.give(actor.name, self.wanted.pop(number), Batch(number, actor.name, run, 1, count))
            case Recall(batches):
                for number in batches:
                    self.recall(number)
            case fx.Abort(asks, _, batches):
                reported = tuple(ask for ask in asks if ask in self.owner)
                super().perform(actor, fx.Abort(tuple(a for a in asks if a not in self.owner), ""), cause)
                for worker in self.total_workers():
                    spans = worker.ledger.spans(batches)
                    self.send(worker.inbox, lambda w=worker, s=spans: self.abort(w, reported, s))
            case _:
                super().perform(actor, effect, cause)

    def give(self, model: str, worker: Worker, batch: Batch) -> None:
        if not batch.count:
            return
        worker.ledger.lend(batch.number, model, batch.count)
        if worker.alive:
            self.send(worker.inbox, lambda: worker.purse.put(batch))
        else:
            self.give_back(worker)

    def recall(self, number: int) -> None:
        for worker in self.workers:
            if worker.alive and worker.ledger.holds(number):
                self.send(worker.inbox, lambda w=worker: self.recalled(w, number))

    def recalled(self, worker: Worker, number: int) -> None:
        worker.purse.recall(number)
        self.tell(worker)
        self.send(worker.outbox, lambda: self.returned(worker, number))

    def returned(self, worker: Worker, number: int) -> None:
        for model, message in worker.ledger.returned(number):
            self.mail(model, message)

    def abort(self, worker: Worker, asks: tuple[int, ...], spans: tuple[tuple[int, int], ...]) -> None:
        for ask in tuple(worker.asks):
            if ask in asks or any(first <= ask < first + count for first, count in spans):
                self.finish(ask)

    def die(self, worker: Worker) -> None:
        """What it has sent is still read, what it has not told is lost, and all that it held comes back."""
        if not worker.alive:
            return
        worker.alive = False
        for ask in worker.asks:
            self.asks[ask].left = True  # its connections are closed, to clients and engines alike
        sent, worker.inbox, worker.outbox = worker.outbox, deque(), deque()
        while sent:
            sent.popleft()()
        self.give_back(worker)
        for ask in worker.asks:
            if ask not in self.on_batch:
                self.mail(self.asks[ask].model, msg.Release(ask))
        worker.asks = set()
        if self.rng.random() < 0.7:
            self.after(self.rng.random(), lambda: self.workers.append(Worker(len(self.workers))))

    def give_back(self, worker: Worker) -> None:
        for model, message in worker.ledger.died():
            self.mail(model, message)

    # --- laws ---------------------------------------------------------------------------------------------------------

    def _check_sleep(self, engine: Engine, flying: int) -> None:
        """No sleep while any worker may admit, or serves."""
        super()._check_sleep(engine, flying)
        for worker in self.total_workers():
            if not worker.hung and worker.purse.can_admit(engine.model, engine.run):
                self.broken(f"/sleep of {engine.model} while worker {worker.number} may admit")

    def check_rest(self) -> None:
        """No ticket is lost: the instances, the ledgers and the purses say the same."""
        for worker in self.workers:
            if worker.ledger.out:
                self.broken(f"worker {worker.number} has out {worker.ledger.out}")
            if worker.alive and not worker.hung and worker.purse.untold:
                self.broken(f"worker {worker.number} has not told all")
            if worker.alive and set(worker.purse.held()) != set(worker.ledger.batches()):
                self.broken(f"worker {worker.number}: {worker.purse.held()} is not {worker.ledger.batches()}")
        for name, actor in self.actors.items():
            known = {n for w in self.workers for n in w.ledger.batches() if w.ledger.model_of(n) == name}
            if set(actor.state.lent) - known or (actor.state.alive and set(actor.state.lent) != known):
                self.broken(f"{name} has lent {actor.state.lent}, workers hold {known}")
            if actor.state.lent and actor.state.phase is not msg.Phase.AWAKE:
                self.broken(f"{name} is {actor.state.phase} and has lent {actor.state.lent}")
        super().check_rest()
