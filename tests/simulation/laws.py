"""The laws of design/architecture.md, section 2, as assertions over a fake world. Each raises Broken with the seed."""

from typing import NoReturn

from tests.simulation.cast import IN_TRANSITION, MB, REST, Ask, Broken, Engine, Faults
from vllama.actors.actor import Actor
from vllama.actors.core import effects as fx
from vllama.actors.core import urgency
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.instance_state import State
from vllama.actors.core.messages import Phase
from vllama.actors.core.shelves import NOISE_BYTES, Shelves
from vllama.actors.core.state import BROKER
from vllama.actors.journal import Journal


class Laws:
    """What must hold in every history; the world beside it says what is there."""

    seed: int
    kind: str
    closing: bool
    faults: Faults
    journal: Journal
    devices: dict[str, int]
    ram: int
    engines: dict[str, Engine]
    asks: dict[int, Ask]
    commands: dict[int, list[fx.Reply]]
    turns: int
    broker: Actor[BrokerState]
    actors: dict[str, Actor[State]]

    def used_by(self, device: str) -> dict[str, int]:
        raise AssertionError("the world says this")

    def _transition(self, name: str, run: int, expected: tuple[str, ...], to: str) -> Engine | None:
        """The engine, now in transition; None when it has died on its own meanwhile."""
        engine = self.engines[name]
        if engine.run != run:
            self.broken(f"{name}: an effect for run {run}, the engine is {engine}")
        if engine.state == "dead":
            return None
        if engine.state not in expected:
            self.broken(f"{name}: {to} while {engine.state}")
        engine.state = to
        self._alone(engine)
        return engine

    def _alone(self, engine: Engine) -> None:
        """Law 9: on CUDA transitions are one at a time; on CPU starts are."""
        if self.actors[engine.model].state.slot_state != "held":
            self.broken(f"{engine.model} is {engine.state} without a slot")
        for other in self.engines.values():
            if other is engine or not set(other.devices) & set(engine.devices):
                continue
            if self.actors[other.model].state.slot_state != "held":
                continue
            both = other.state in IN_TRANSITION and engine.state in IN_TRANSITION
            starts = other.state == engine.state == "starting"
            if (both and self.kind == "cuda") or starts:
                self.broken(f"{engine} is in transition beside {other}")

    def _check_wake(self, engine: Engine) -> None:
        """Nobody is woken within less than it takes, but for who was started within so little."""
        lease = self.actors[engine.model].state.lease_bytes
        if not self.faults.lying_footprint and min(engine.takes, engine.launched_with) > lease + NOISE_BYTES:
            self.broken(f"{engine} is woken within {lease / MB:.0f} MB")

    def _check_memory(self, engine: Engine) -> None:
        """Law 4, for real: what engines take is at most what the device has."""
        if self.faults.lying_footprint:
            return
        for device in engine.devices:
            used = sum(self.used_by(device).values())
            if used > self.devices[device]:
                self.broken(f"{device} out of memory: {used / MB:.0f} MB of {self.devices[device] / MB:.0f}")

    def _check_sleep(self, engine: Engine, flying: int) -> None:
        """Law 3, and only what was started with sleep mode is put to sleep."""
        if flying:
            self.broken(f"/sleep of {engine.model} with {flying} requests in flight")
        if not engine.can_sleep:
            self.broken(f"/sleep of {engine.model}, which was started without sleep mode")

    def _check_ram(self) -> None:
        """Law 4 for the host's RAM: weights of all that have slept at level 1, awake or not, are within the limit."""
        copies = sum(engine.copy for engine in self.engines.values())
        if copies > self.ram:
            self.broken(f"host RAM: {copies / MB:.0f} MB of weights, {self.ram / MB:.0f} are allowed")

    def _check_books(self, name: str) -> None:
        if name != BROKER:
            return
        if self.turns % 20 == 0:
            self._check_shelves()
        for device, total in self.devices.items():
            booked = self.broker.state.booked_bytes(device)
            if booked > total:
                self.broken(f"{device}: {booked / MB:.0f} MB booked of {total / MB:.0f}")
        if (copies := self.broker.state.copies_bytes()) > self.ram:
            self.broken(f"host RAM: {copies / MB:.0f} MB booked of {self.ram / MB:.0f}")

    def _check_urgency(self, name: str) -> None:
        """The broker has been told the highest priority of those who wait for this model."""
        if name == BROKER:
            return
        s = self.actors[name].state
        if not s.own_priorities.keys() <= s.waiting.keys():
            self.broken(f"{name}: priorities of who waits no more: {s}")
        if s.lease_state == "waiting" and s.urgency != (right := urgency.of_waiting(s, s.policy)):
            self.broken(f"{name}: the broker was told {s.urgency}, {right} is the highest that waits: {s}")

    def _check_shelves(self) -> None:
        """What `evolve` has kept is what the books alone say."""
        books = self.broker.state
        kept, made = books.shelves.seen(), Shelves(books.devices, books.leases, books.slots).seen()
        for part in made:
            if kept[part] != made[part]:
                self.broken(f"shelves, {part}: {kept[part]} are kept, the books say {made[part]}")

    def check_rest(self) -> None:
        """Laws 1, 5 and 6."""
        for number, ask in self.asks.items():
            if not ask.answered and not ask.left:
                self.broken(f"ask {number} of {ask.model} was never answered")
        for number, replies in self.commands.items():
            if len(replies) != 1:
                self.broken(f"command {number} was answered {len(replies)} times")
        for name, actor in self.actors.items():
            s = actor.state
            if (
                s.phase not in REST
                or s.waiting
                or s.serving
                or s.goals
                or s.slot_state
                or s.lease_state == "waiting"
            ):
                self.broken(f"{name} is not at rest: {s}")
            if (s.phase is Phase.AWAKE) != (s.lease_state == "held"):
                self.broken(f"{name} is {s.phase} and its lease is {s.lease_state!r}")
            if s.phase is Phase.AWAKE and s.idle_after_s() is not None:
                self.broken(
                    f"{name} is awake and idle for ever, though it is to sleep after {s.idle_after_s()} s"
                )
            engine = self.engines.get(name)
            if self.closing and s.alive:
                self.broken(f"{name} outlives the shutdown: {s}")
            if s.alive != (engine is not None and engine.state != "dead"):
                self.broken(f"{name}: alive is {s.alive}, the engine is {engine}")
        self._check_rest_of_books()
        live = {BROKER: self.broker.state, **{name: actor.state for name, actor in self.actors.items()}}
        for folded in (self.journal.states, self.journal.fold()):
            for name, state in live.items():
                if folded.state(name) != state:
                    self.broken(f"fold of {name} is not its state:\n{folded.state(name)}\n{state}")

    def _check_rest_of_books(self) -> None:
        books = self.broker.state
        if books.slots:
            self.broken(f"slots left: {books.slots}")
        copies = {engine.model: engine.copy for engine in self.engines.values() if engine.copy}
        if copies != books.copies:
            self.broken(f"the books say {books.copies} of the host's RAM, it is {copies}")
        for lease in books.leases.values():
            s = self.actors[lease.model].state
            mine = lease.lease == (s.lease if lease.state == "held" else s.residue_lease)
            if lease.state in ("waiting", "returning") or not mine or lease.evicting or lease.offered:
                self.broken(f"lease left: {lease}, its instance is {s}")
            told = (s.policy.pinned, s.policy.priority)
            if lease.state == "residue" and (lease.pinned, lease.priority) != told:
                self.broken(f"the broker was not told of {told}: {lease}")

    def broken(self, what: str) -> NoReturn:
        raise Broken(f"seed {self.seed}: {what}")

    def _describe(self) -> str:
        phases = {name: actor.state.phase.value for name, actor in self.actors.items()}
        return f"{phases} {self.broker.state}"
