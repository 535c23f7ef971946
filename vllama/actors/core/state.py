"""StateManager: the read model, folded from the journal by the very `evolve` that the actors use. Memory only."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from vllama.actors.core import broker_state, instance_state
from vllama.actors.core.broker_state import BrokerState
from vllama.actors.core.events import Event, HostNoted
from vllama.actors.core.instance_state import State
from vllama.actors.core.levels import notes_on
from vllama.actors.core.messages import Phase

BROKER = "broker"
HOST = "host"
SYSTEM = "system"
Folded: TypeAlias = State | BrokerState


@dataclass(frozen=True, slots=True)
class InstanceView:
    """One instance as `ps` shows it. `last_used` is unix time (None: never), `memory_bytes` what its lease books now."""

    model: str
    phase: str
    level: int
    devices: tuple[str, ...]
    memory_bytes: int
    residue_bytes: int
    copy_bytes: int  # its weights in the host's RAM, since it slept at level 1
    in_flight: int
    waiting: int
    last_used: float | None
    port: int
    log: str
    pid: int
    mode: str
    mode_reason: str
    error: str
    restart_needed: tuple[str, ...] = ()  # settings that have changed since this engine was started
    idle_after_s: float | None = None  # idle for so long, it goes to sleep; None: never by itself
    footprint_bytes: int = 0  # of each device, as measured while it was awake; 0: not yet
    priority: int = 0  # the model's own; of those who wait, the highest
    notes: tuple[str, ...] = ()  # sleep levels that it does not use, and why


class StateManager:
    """What every actor's state is, by the journal: folding any journal always gives the live state."""

    def __init__(self) -> None:
        self._states: dict[str, Folded] = {}
        self.host_notes: dict[str, str] = {}

    def apply(self, actor: str, event: Event) -> None:
        """Take one record in."""
        state = self._states.get(actor)
        if type(state) is State:
            instance_state.evolve(state, event)
        elif type(state) is BrokerState:
            broker_state.evolve(state, event)
        elif type(event) is HostNoted:
            self.host_notes[event.what] = event.detail
        else:
            self._states[actor] = BrokerState() if actor == BROKER else State()
            self.apply(actor, event)

    def state(self, actor: str) -> Folded | None:
        """The folded state itself: look, do not touch."""
        return self._states.get(actor)

    def instance(self, model: str) -> State | None:
        state = self._states.get(model)
        return state if isinstance(state, State) else None

    def broker(self) -> BrokerState:
        state = self._states.get(BROKER)
        return state if isinstance(state, BrokerState) else BrokerState()

    def instances(self) -> tuple[State, ...]:
        return tuple(state for state in self._states.values() if isinstance(state, State))

    def views(self) -> tuple[InstanceView, ...]:
        """Every instance, as `ps` shows it."""
        return tuple(view(state) for state in self.instances())

    def copy(self) -> "StateManager":
        """An independent copy: a snapshot."""
        return self.copy_since(StateManager(), frozenset())

    def copy_since(self, earlier: "StateManager", changed: Collection[str]) -> "StateManager":
        """The same, but who has not changed since an earlier snapshot is that one's, for nobody changes a snapshot."""
        twin = StateManager()
        for actor, state in self._states.items():
            same = None if actor in changed else earlier.state(actor)
            twin.put(actor, state.copy() if same is None else same)
        twin.host_notes = dict(self.host_notes)
        return twin

    def put(self, actor: str, state: Folded) -> None:
        """Begin from a snapshot's state."""
        self._states[actor] = state

    def actors(self) -> tuple[str, ...]:
        return tuple(self._states)

    def clear_state(self) -> None:
        """Forget everything: the server ends."""
        self._states.clear()
        self.host_notes.clear()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StateManager) and self._states == other._states

    __hash__ = None  # type: ignore[assignment]  # mutable, compared by value


def view(s: State) -> InstanceView:
    """One instance's state as plain data."""
    held = s.lease_bytes if s.lease_state == "held" else 0
    return InstanceView(
        model=s.model,
        phase=s.phase.value,
        level=s.level if s.phase is not Phase.STOPPED else 0,
        devices=s.devices if s.alive or held else (),
        memory_bytes=held or s.residue_bytes,
        residue_bytes=s.residue_bytes,
        copy_bytes=s.copy_bytes,
        in_flight=len(s.serving),
        waiting=len(s.waiting),
        last_used=s.last_used or None,
        port=s.port if s.alive else 0,
        log=s.log,
        pid=s.pid,
        mode=s.mode if s.alive else "",
        mode_reason=s.mode_reason if s.alive else "",
        error=s.error,
        restart_needed=s.stale(),
        idle_after_s=s.idle_after_s(),
        footprint_bytes=s.footprint_bytes if s.alive else 0,
        priority=s.urgency if s.lease_state == "waiting" else s.policy.priority,
        notes=notes_on(s),
    )
