"""System: wires the actors to a Host, and is the only thing the edge talks to: ask, tell, Ticket, shutdown in reverse order."""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, Literal

from vllama.actors.about import about
from vllama.actors.actor import Actor
from vllama.actors.admissions import Admissions
from vllama.actors.catalog import Catalog
from vllama.actors.core import broker, instance
from vllama.actors.core import effects as fx
from vllama.actors.core import events as ev
from vllama.actors.core import messages as msg
from vllama.actors.core.batches import GiveBatch, Recall
from vllama.actors.core.broker import BrokerState
from vllama.actors.core.broker_events import BrokerCreated
from vllama.actors.core.instance_state import State
from vllama.actors.core.state import BROKER, HOST, InstanceView
from vllama.actors.effects import Effects
from vllama.actors.journal import Journal
from vllama.actors.patience import until
from vllama.actors.results import CommandResult as CommandResult
from vllama.actors.ticket import Pending, Ticket
from vllama.actors.timers import Timers
from vllama.actors.translate import (
    describe_devices,
    describe_ram,
    to_broker_policy,
    to_command,
    to_error,
    to_policy,
    to_settings,
)
from vllama.actors.workers.bank import Bank
from vllama.config import ModelConfig, VllamaConfig
from vllama.errors import ConfigError, QueueFull, ShuttingDown
from vllama.host.estimate import Footprint
from vllama.host.host import DeviceInfo, Host, ModelFiles
from vllama.names import Route

log = logging.getLogger("vllama.actors")


class System:
    """Every actor of this server. Enter and leave `start` / `shutdown` from the same task."""

    def __init__(
        self, config: VllamaConfig, host: Host, models: dict[str, ModelConfig] | None = None
    ) -> None:
        self.config = config
        self.host = host
        self.stopping = False
        self.broken = (
            asyncio.Event()
        )  # the broker met a bug: the books cannot be trusted, the server must end
        begun_wall, begun = time.time(), time.monotonic()
        self._clock: Callable[[], float] = lambda: begun_wall + time.monotonic() - begun
        self.journal = Journal(self._clock, config.journal_lifecycle_max, config.journal_requests_max)
        self.catalog = Catalog(host, config, models or {}, self._on_change, self._on_problem)
        self._unfit: dict[str, str] = {}  # by model: why its entry cannot be on this machine
        self._ids = itertools.count(1)
        self._actors: dict[str, Actor[State]] = {}
        self._commands: dict[int, asyncio.Future[fx.Reply]] = {}
        self._timers = Timers(self._tell)
        self._quiet = asyncio.Event()  # set whenever a ticket has ended or an engine has gone
        self._admissions = Admissions(self._actors, self._quiet)
        self.bank = Bank(self, self.catalog, self._ids, self._tell, self._quiet)  # worker processes, if any
        self._stack = AsyncExitStack()
        self._tasks: asyncio.TaskGroup
        self._running: list[asyncio.Task[None]] = []
        self._slow: set[asyncio.Task[None]] = set()  # effects under way
        self._broker: Actor[BrokerState]
        self._effects: Effects

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the host, find the devices, begin to listen to both. Returns while the zygote still loads."""
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self.bank.begin(self._tasks)
        self._effects = Effects(self.host, self.config, self._tell, self._spawn)
        self._broker = self._actor(BROKER, BrokerState(), broker)
        await self.host.open()
        info = await self.host.describe()
        if problem := await self._effects.calibration.recall(info.versions):
            self.note("footprints_ignored", problem)
        created = BrokerCreated(to_broker_policy(self.config, info.ram_total_bytes))
        self.journal.append(BROKER, ("Create", 0), created, self._clock())
        broker.evolve(self._broker.state, created)
        for device in info.devices:
            self._effects.devices[device.id] = device
            self._broker.tell(msg.DeviceFound(device.id, device.kind, device.total_bytes))
        self._run(self._broker)
        self._running.append(self._tasks.create_task(self._effects.watch(self.note)))
        self._running.append(self._tasks.create_task(self.catalog.watch()))

    async def shutdown(self, hurry: asyncio.Event | None = None) -> None:
        """Admit nothing, let what runs finish within `shutdown_timeout_s` (or until `hurry`), stop engines, close the host."""
        self.stopping = True
        self._admissions.refuse_all(
            lambda model: ShuttingDown(f"vllama is shutting down; {model} was not started", retry_after_s=5)
        )
        await self.bank.withdraw(hurry)
        busy = {ticket.model for ticket in self._admissions.held} | self.bank.busy()
        for name, actor in self._actors.items():
            if name not in busy:
                actor.tell(msg.Shutdown())
        await until(
            lambda: not self._admissions.held and not self.bank.busy(),
            self._quiet,
            self.config.shutdown_timeout_s,
            hurry,
        )
        self._admissions.abort_all()
        self.bank.abort_all()
        await self.cleanup_all_instances(hurry)
        self._timers.cancel()
        for task in self._running:  # before the host: a closed host answers at once, for ever
            task.cancel()
        await self.host.close()
        for task in list(self._slow):  # what an effect still waits for will not come any more
            task.cancel()
        await self._stack.aclose()
        self.journal.states.clear_state()

    async def cleanup_all_instances(self, hurry: asyncio.Event | None = None) -> None:
        """Stop every engine and wait until all are gone, at the latest `stop_grace_s` and a little later."""
        for actor in self._actors.values():
            actor.tell(msg.Shutdown())
        bound_s = self.config.stop_grace_s + 5.0
        await until(
            lambda: not any(a.state.alive for a in self._actors.values()), self._quiet, bound_s, hurry
        )

    # --- the edge -----------------------------------------------------------------------------------------------------

    async def ensure_instance_running(
        self, model: str, wait_s: float | None = None, request_id: str = "", priority: int | None = None
    ) -> Ticket:
        """A ticket for an awake engine of this model, which is started or woken if need be. The journal's records of this
        request carry `request_id`. Raises VllamaError."""
        pending = self.ask(model, request_id, priority)
        if pending is None:
            pending = self.ask((await self._actor_of(model)).name, request_id, priority)
            assert pending is not None
        return await self._admissions.answer(pending, wait_s)

    def ask(self, model: str, request_id: str = "", priority: int | None = None) -> Pending | None:
        """Ask for a ticket, without waiting: it is there on return if the engine is awake; else `answer` waits for it. None:
        no instance of this name has begun. Raises QueueFull, ShuttingDown."""
        if self.stopping:
            raise ShuttingDown("vllama is shutting down; ask again later", model=model, retry_after_s=5)
        actor = self._actors.get(model)
        return None if actor is None else self._admissions.ask(next(self._ids), actor, request_id, priority)

    async def answer(self, pending: Pending, wait_s: float | None = None) -> Ticket:
        """What an ask comes to. Raises VllamaError; leaving it gives the ask up."""
        return await self._admissions.answer(pending, wait_s)

    def give_up(self, pending: Pending) -> None:
        """Who asked has left before the answer. Twice does nothing."""
        self._admissions.give_up(pending)

    def keep_alive(self, model: str, for_s: float) -> None:
        """How long a model stays awake when nobody uses it, from now on (below 0: for ever). Wakes nothing, answers nothing."""
        self._tell(model, msg.KeepAlive(for_s), 0)

    async def command(
        self, verb: Literal["start", "stop", "sleep"], model: str, *, level: int = 2, force: bool = False
    ) -> CommandResult:
        """An operator's command; returns when its goal is reached. Raises VllamaError (Overtaken: another one won)."""
        if self.stopping:
            raise ShuttingDown("vllama is shutting down; ask again later", model=model, retry_after_s=5)
        actor = self._actors.get(model)
        if actor is None or (verb == "start" and not actor.state.alive):  # its files may be gone since
            actor = await self._actor_of(model)
        model = actor.name
        number = next(self._ids)
        future: asyncio.Future[fx.Reply] = asyncio.get_running_loop().create_future()
        self._commands[number] = future
        try:
            if not actor.offer(to_command(verb, number, level, force=force)):
                raise QueueFull(
                    f"too many messages wait for {model}; try again", model=model, retry_after_s=1
                )
            reply = await future
        finally:
            self._commands.pop(number, None)
        if reply.refusal is not None:
            raise to_error(reply.refusal, model)
        return CommandResult(model, reply.phase, reply.level, actor.state.log, reply.note)

    def find(self, name: str) -> Route | None:
        """Which model a name means, from memory alone; None when it means none that is known. One whose files are gone is
        known as long as its engine is there."""
        route = self.catalog.names.find(name)
        if route is not None and route.model == name:
            return route
        actor = self._actors.get(name)
        return Route(name, name) if actor is not None and actor.state.alive else route

    async def route(self, name: str) -> Route:
        """The same; for a name that is not known the cache is looked at once more. Raises ModelUnknown."""
        if (route := self.find(name)) is not None:
            return route
        await self.catalog.refresh()
        if (route := self.find(name)) is not None:
            return route
        where = str(self.config.transformers_cache)
        raise await asyncio.to_thread(self.catalog.names.unknown, name, where)

    def ps(self) -> tuple[InstanceView, ...]:
        """Every instance that was asked for since the server started."""
        return self.journal.states.views()

    def devices(self) -> list[dict[str, Any]]:
        """Every device, with what is booked on it."""
        return describe_devices(self._effects.devices.values(), self.journal.states.broker())

    def footprints(self, files: ModelFiles) -> tuple[tuple[DeviceInfo, ...], Mapping[str, Footprint]]:
        """The devices, and what this model's engine was measured to take of them."""
        found = self._effects.calibration.of(files, self.catalog.of(files.id))
        return tuple(self._effects.devices.values()), found

    def ram(self) -> dict[str, Any]:
        """The host's RAM that level-1 sleepers may take, and who has taken how much of it."""
        return describe_ram(self.journal.states.broker())

    async def info(self) -> dict[str, Any]:
        """The server's settings, its host and what is booked on each device. Waits for no disk and no engine."""
        return about(self, await self.host.describe())

    def saved_journal(self) -> Iterator[dict[str, Any]]:
        """The journal as JSON lines: a snapshot, the records after it, and the live states that they must fold to."""
        yield from self.journal.saved()
        actors: list[Actor[Any]] = [self._broker, *self._actors.values()]
        yield self.journal.ended({actor.name: actor.state for actor in actors})

    async def models(self) -> tuple[ModelFiles, ...]:
        """The complete models of the cache, as they were when it was last looked at."""
        await self.catalog.ready()
        return self.catalog.models

    # --- actors -------------------------------------------------------------------------------------------------------

    async def _actor_of(self, name: str) -> Actor[State]:
        """The actor of the model that a name means; begun when it is asked for the first time. Raises ModelUnknown."""
        model = (await self.route(name)).model
        return self._actors.get(model) or self._create(self.catalog.files[model])

    def _create(self, files: ModelFiles) -> Actor[State]:
        model, created = files.id, self.created(files)
        self._effects.register(files, self.catalog.of(model))
        actor: Actor[State] = self._actor(model, State(), instance)
        self.journal.append(model, ("Create", 0), created, self._clock())
        instance.evolve(actor.state, created)
        self._actors[model] = actor
        self._run(actor)
        return actor

    def _actor(self, name: str, state: Any, core: Any) -> Actor[Any]:
        bound = self.config.mailbox_max
        return Actor(
            name,
            state,
            core.decide,
            core.evolve,
            self.journal,
            self._perform,
            self._clock,
            self._on_bug,
            bound,
        )

    def created(self, files: ModelFiles) -> ev.InstanceCreated:
        """How a model's instance begins. Raises ConfigError."""
        entry = self.catalog.of(files.id)
        policy, need = self._policy(entry), self._need(files, entry)
        return ev.InstanceCreated(files.id, policy, need, to_settings(self.config, files, entry))

    def _on_change(self, changed: frozenset[str]) -> None:
        """The entries or the files of these models have changed; an actor that is there hears of it, and every worker."""
        self.bank.rename()
        for model in sorted(changed):
            files, actor = self.catalog.files.get(model), self._actors.get(model)
            if files is None or (actor is None and model not in self.catalog.configs):
                continue
            model_config = self.catalog.of(model)
            try:
                need = self._need(files, model_config)
            except ConfigError as error:
                self._unfit[model] = error.message
                self._on_problem(error.message)
                continue
            if self._unfit.pop(model, None) is not None:
                self._on_problem("")
            if actor is None:
                continue
            self._effects.register(files, model_config)
            policy = self._policy(model_config)
            actor.tell(msg.Configure(policy, need, to_settings(self.config, files, model_config)))

    @property
    def problem(self) -> str:
        """What is wrong with models.yaml: the file itself, or an entry that asks for what this machine has not."""
        return "; ".join(filter(None, (self.catalog.problem, *self._unfit.values())))

    def _on_problem(self, problem: str) -> None:
        """models.yaml has become wrong, or right again."""
        if problem:
            log.error("%s; what was read last stays in force", problem)
            self.note("config_rejected", problem)
        else:
            log.info("%s is right again and in force", self.config.models_file)
            self.note("config_accepted", str(self.config.models_file))

    def _policy(self, model_config: ModelConfig) -> msg.Policy:
        on_gpu = any(device.kind == "cuda" for device in self._effects.devices.values())
        return to_policy(self.config, model_config, on_gpu=on_gpu)

    def _need(self, files: ModelFiles, model_config: ModelConfig) -> msg.Need:
        return self._effects.calibration.need(files, model_config)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(work)
        self._slow.add(task)
        task.add_done_callback(self._slow.discard)

    def _run(self, actor: Actor[Any]) -> None:
        self._running.append(self._tasks.create_task(actor.run(), name=f"actor {actor.name}"))

    def _tell(self, actor: str, message: object, cause: int = 0) -> None:
        target = self._broker if actor == BROKER else self._actors.get(actor)
        if target is not None:
            target.tell(message, cause)
        if type(message) is msg.EngineExited:
            self._quiet.set()

    def _perform(self, actor: Actor[Any], effect: fx.Effect, cause: int) -> None:
        """Inline effects are done here, at once and in order; slow ones are handed on."""
        if type(effect) is fx.Admit:  # the warm path's only effect
            self._admissions.admit(actor, effect.ask, effect.how)
            return
        match effect:
            case fx.TellBroker(message) | fx.TellSelf(message):
                self._broker.tell(message, cause)
            case fx.TellInstance(model, message):
                self._tell(model, message, cause)
            case fx.Refuse(ask, refusal):
                self._admissions.refuse(ask, to_error(refusal, actor.name))
            case fx.Reply(command):
                if (future := self._commands.get(command)) is not None and not future.done():
                    future.set_result(effect)
            case fx.Abort(asks, _, batches):
                self._admissions.abort(asks)
                self.bank.abort(asks, batches)
            case GiveBatch() | Recall():
                self.bank.perform(actor.name, actor.state.port, effect)
            case fx.SetTimer(timer, delay_s):
                self._timers.set(actor.name, delay_s, msg.TimerDue(timer))
            case fx.SetTick(delay_s):
                self._timers.set(BROKER, delay_s, msg.Tick())
            case _:
                self._effects.start(actor.name, effect, cause)

    def note(self, what: str, detail: str) -> None:
        """Something of the host that no decision hangs on."""
        self.journal.append(HOST, ("HostEvent", 0), ev.HostNoted(what, detail), self._clock())

    def _on_bug(self, actor: Actor[Any], error: Exception, cause: int) -> None:
        """Supervision: an instance begins anew (its engine is killed, its callers are told); the broker's books cannot."""
        log.critical("bug in the turn of %s: %r", actor.name, error, exc_info=error)
        if actor.name == BROKER:
            self.broken.set()
            return
        state: State = actor.state
        refusal = msg.Refusal(
            "internal_error", f"vllama met a bug in its handling of {actor.name}; please report it"
        )
        asks = [*state.waiting, *state.serving]
        commands, run, alive, lent = list(state.goals), state.run, state.alive, tuple(state.lent)
        event = ev.InstanceReset(repr(error))
        seq = self.journal.append(actor.name, ("Bug", cause), event, self._clock())
        instance.evolve(state, event)
        self.bank.recall(lent)
        for ask in asks:
            self._perform(actor, fx.Refuse(ask, refusal), seq)
        for command in commands:
            self._perform(actor, fx.Reply(command, state.phase.value, 0, refusal=refusal), seq)
        if alive:
            self._effects.start(actor.name, fx.Kill(run), seq)
        self._broker.tell(msg.HolderLost(actor.name), seq)
