"""System: wires the actors to a Host, and is the only thing the edge talks to: ask, tell, Ticket, shutdown in reverse order."""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal

from vllama.actors.actor import Actor
from vllama.actors.catalog import Catalog
from vllama.actors.core import broker, instance
from vllama.actors.core import effects as fx
from vllama.actors.core import events as ev
from vllama.actors.core import messages as msg
from vllama.actors.core.broker import BrokerState
from vllama.actors.core.broker_events import BrokerCreated
from vllama.actors.core.instance_state import State
from vllama.actors.core.state import BROKER, HOST, InstanceView
from vllama.actors.effects import Effects
from vllama.actors.journal import Journal
from vllama.actors.names import Route
from vllama.actors.patience import until
from vllama.actors.placement import need_of
from vllama.actors.ticket import Pending, Ticket
from vllama.actors.translate import describe, to_broker_policy, to_command, to_error, to_policy, to_settings
from vllama.config import ModelConfig, VllamaConfig
from vllama.errors import ConfigError, QueueFull, ShuttingDown, WaitTimeout
from vllama.host.host import Host, ModelFiles

log = logging.getLogger("vllama.actors")


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command came to: the phase reached, and a note when it is not quite what was asked for."""

    model: str
    phase: str
    level: int
    log: str
    note: str


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
        self._ids = itertools.count(1)
        self._actors: dict[str, Actor[State]] = {}
        self._pending: dict[int, Pending] = {}
        self._commands: dict[int, asyncio.Future[fx.Reply]] = {}
        self._tickets: dict[int, Ticket] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._quiet = asyncio.Event()  # set whenever a ticket has ended or an engine has gone
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
        self._effects = Effects(self.host, self.config, self._tell, self._spawn)
        self._broker = Actor(
            BROKER,
            BrokerState(),
            broker.decide,
            broker.evolve,
            self.journal,
            self._perform,
            self._clock,
            self._on_bug,
        )
        created = BrokerCreated(to_broker_policy(self.config))
        self.journal.append(BROKER, ("Create", 0), created, self._clock())
        broker.evolve(self._broker.state, created)
        await self.host.open()
        info = await self.host.describe()
        for device in info.devices:
            self._effects.devices[device.id] = device
            self._broker.tell(msg.DeviceFound(device.id, device.kind, device.total_bytes))
        self._run(self._broker)
        self._running.append(self._tasks.create_task(self._effects.watch(self._note)))
        self._running.append(self._tasks.create_task(self.catalog.watch()))

    async def shutdown(self, hurry: asyncio.Event | None = None) -> None:
        """Admit nothing, let what runs finish within `shutdown_timeout_s` (or until `hurry`), stop engines, close the host."""
        self.stopping = True
        for ask, pending in list(self._pending.items()):
            self._forget(ask)
            pending.refuse(
                ShuttingDown(f"vllama is shutting down; {pending.model} was not started", retry_after_s=5)
            )
        busy = {ticket.model for ticket in self._tickets.values()}
        for name, actor in self._actors.items():
            if name not in busy:
                actor.tell(msg.Shutdown())
        await until(lambda: not self._tickets, self._quiet, self.config.shutdown_timeout_s, hurry)
        for ticket in list(self._tickets.values()):
            self._abort(ticket)
        await self.cleanup_all_instances(hurry)
        for handle in self._timers.values():
            handle.cancel()
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

    async def ensure_instance_running(self, model: str, wait_s: float | None = None) -> Ticket:
        """A ticket for an awake engine of this model, which is started or woken if need be. Raises VllamaError."""
        if self.stopping:
            raise ShuttingDown("vllama is shutting down; ask again later", model=model, retry_after_s=5)
        actor = self._actors.get(model) or await self._actor_of(model)
        model = actor.name
        ask = next(self._ids)
        pending = self._pending[ask] = Pending(model)
        if not actor.offer(msg.Acquire(ask)):
            del self._pending[ask]
            raise QueueFull(f"too many requests for {model} at once; try again", model=model, retry_after_s=1)
        ticket = pending.answered()
        if ticket is not None:
            return ticket
        try:
            return await pending.wait(wait_s)
        except TimeoutError as error:
            phase = actor.state.phase.value
            self._forget(ask)
            text = f"{model} was not ready within the {wait_s:g} s that the caller would wait (it is {phase})"
            raise WaitTimeout(text, model=model, retry_after_s=5) from error
        except asyncio.CancelledError:
            self._forget(ask)
            raise

    async def command(
        self, verb: Literal["start", "stop", "sleep"], model: str, *, level: int = 2, force: bool = False
    ) -> CommandResult:
        """An operator's command; returns when its goal is reached. Raises VllamaError (Overtaken: another one won)."""
        if self.stopping:
            raise ShuttingDown("vllama is shutting down; ask again later", model=model, retry_after_s=5)
        actor = self._actors.get(model) or await self._actor_of(model)
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
        """Which model a name means, from memory alone; None when it means none that is known."""
        return Route(name, name) if name in self._actors else self.catalog.names.find(name)

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

    async def info(self) -> dict[str, Any]:
        """The server's settings, its host and what is booked on each device."""
        report = describe(self.config, await self.host.describe(), self.journal.states.broker())
        return report | {
            "models": len(await self.models()),
            "models_file": {"path": str(self.config.models_file), "problem": self.catalog.problem},
            "seq": self.journal.seq,
            "stopping": self.stopping,
        }

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
        model, model_config = files.id, self.catalog.of(files.id)
        self._effects.register(files, model_config)
        created = ev.InstanceCreated(
            model,
            to_policy(self.config, model_config),
            self._need(files, model_config),
            to_settings(self.config, files, model_config),
        )
        actor = Actor(
            model,
            State(),
            instance.decide,
            instance.evolve,
            self.journal,
            self._perform,
            self._clock,
            self._on_bug,
            self.config.mailbox_max,
        )
        self.journal.append(model, ("Create", 0), created, self._clock())
        instance.evolve(actor.state, created)
        self._actors[model] = actor
        self._run(actor)
        return actor

    def _on_change(self, changed: frozenset[str]) -> None:
        """The entries or the files of these models have changed; an actor that is there hears of it."""
        for model in sorted(changed):
            files, actor = self.catalog.files.get(model), self._actors.get(model)
            if files is None or actor is None:
                continue
            model_config = self.catalog.of(model)
            try:
                need = self._need(files, model_config)
            except ConfigError as error:
                self._on_problem(error.message)
                continue
            self._effects.register(files, model_config)
            policy = to_policy(self.config, model_config)
            actor.tell(msg.Configure(policy, need, to_settings(self.config, files, model_config)))

    def _on_problem(self, problem: str) -> None:
        """models.yaml has become wrong, or right again."""
        if problem:
            log.error("%s; what was read last stays in force", problem)
            self._note("config_rejected", problem)
        else:
            self._note("config_accepted", str(self.config.models_file))

    def _need(self, files: ModelFiles, model_config: ModelConfig) -> msg.Need:
        return need_of(files, model_config, self.config, self._effects.devices.values())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(work)
        self._slow.add(task)
        task.add_done_callback(self._slow.discard)

    def _run(self, actor: Actor[Any]) -> None:
        self._running.append(self._tasks.create_task(actor.run(), name=f"actor {actor.name}"))

    def _tell(self, actor: str, message: object, cause: int) -> None:
        target = self._broker if actor == BROKER else self._actors.get(actor)
        if target is not None:
            target.tell(message, cause)
        if type(message) is msg.EngineExited:
            self._quiet.set()

    def _perform(self, actor: Actor[Any], effect: fx.Effect, cause: int) -> None:
        """Inline effects are done here, at once and in order; slow ones are handed on."""
        if type(effect) is fx.Admit:  # the warm path's only effect
            self._admit(actor, effect.ask, effect.how)
            return
        match effect:
            case fx.TellBroker(message) | fx.TellSelf(message):
                self._broker.tell(message, cause)
            case fx.TellInstance(model, message):
                self._tell(model, message, cause)
            case fx.Refuse(ask, refusal):
                if (pending := self._pending.pop(ask, None)) is not None:
                    pending.refuse(to_error(refusal, actor.name))
            case fx.Reply(command):
                if (future := self._commands.get(command)) is not None and not future.done():
                    future.set_result(effect)
            case fx.Abort(asks):
                for ask in asks:
                    if (ticket := self._tickets.get(ask)) is not None:
                        self._abort(ticket)
            case fx.SetTimer(timer, delay_s):
                self._set_timer(actor.name, delay_s, msg.TimerDue(timer))
            case fx.SetTick(delay_s):
                self._set_timer(BROKER, delay_s, msg.Tick())
            case _:
                self._effects.start(actor.name, effect, cause)

    def _admit(self, actor: Actor[State], ask: int, how: msg.How) -> None:
        pending = self._pending.pop(ask, None)
        if pending is None:  # its caller has left; the Release is in the mailbox already
            return
        state, waited = actor.state, pending.waited_ms()
        ticket = Ticket(ask, actor.name, state.run, state.port, how, waited, self._release, self._unreachable)
        self._tickets[ask] = ticket
        pending.admit(ticket)

    def _release(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket.ask, None)
        self._actors[ticket.model].tell(msg.Release(ticket.ask))
        if self.stopping:
            self._quiet.set()

    def _unreachable(self, ticket: Ticket) -> None:
        self._actors[ticket.model].tell(msg.EngineUnreachable(ticket.run))

    def _forget(self, ask: int) -> None:
        """The caller of an ask has left before it was answered."""
        if (pending := self._pending.pop(ask, None)) is not None:
            self._actors[pending.model].tell(msg.Release(ask))

    def _abort(self, ticket: Ticket) -> None:
        if ticket.on_abort is not None:
            ticket.on_abort()

    def _set_timer(self, actor: str, delay_s: float, message: object) -> None:
        if (old := self._timers.pop(actor, None)) is not None:
            old.cancel()
        self._timers[actor] = asyncio.get_running_loop().call_later(delay_s, self._tell, actor, message, 0)

    def _note(self, what: str, detail: str) -> None:
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
        commands, run, alive = list(state.goals), state.run, state.alive
        event = ev.InstanceReset(repr(error))
        seq = self.journal.append(actor.name, ("Bug", cause), event, self._clock())
        instance.evolve(state, event)
        for ask in asks:
            self._perform(actor, fx.Refuse(ask, refusal), seq)
        for command in commands:
            self._perform(actor, fx.Reply(command, state.phase.value, 0, refusal=refusal), seq)
        if alive:
            self._effects.start(actor.name, fx.Kill(run), seq)
        self._broker.tell(msg.HolderLost(actor.name), seq)
