"""The dry run decides by the real cores, on copies: what it was given is what it was before."""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from tests.simulation.cast import Ask, Faults
from tests.simulation.world import World
from vllama.actors.core import broker_events as bk
from vllama.actors.core import events as ev
from vllama.actors.core import messages as msg
from vllama.actors.core.instance_state import State
from vllama.actors.core.messages import Phase
from vllama.actors.core.state import BROKER
from vllama.actors.record import Record
from vllama.actors.rehearsal import ASK, Rehearsal, Rehearsed


def rehearsed(world: World, model: str) -> Rehearsed:
    states = world.journal.states
    own = states.instance(model)
    assert own is not None
    return Rehearsal(states, model, own.copy(), world.now).run()


def live(world: World) -> dict[str, Any]:
    return {BROKER: world.broker.state.copy(), **{name: a.state.copy() for name, a in world.actors.items()}}


@pytest.mark.parametrize("seed", range(12))
def test_at_any_moment_of_a_history_it_comes_to_an_answer_and_changes_nothing(seed: int) -> None:
    world = World(seed)
    for _ in range(12):
        world.after(world.rng.random() * 20, world.client)
    for turn in range(400):
        if not world.step():
            break
        if turn % 10 == 0 and not any(world._mail.values()):  # a System delivers at once
            before, seq = live(world), world.journal.seq
            for model in world.models:
                seen = rehearsed(world, model)
                assert seen.outcome in ("warm", "wake", "cold", "refused"), seen
            assert (live(world), world.journal.seq) == (before, seq)
            assert not any(ASK in actor.state.waiting for actor in world.actors.values())


@pytest.mark.parametrize("seed", range(16))
def test_it_says_what_then_happens(seed: int) -> None:
    """In a world where all goes well, and nothing happens beside: who goes is who would, and it comes up as it would."""
    world = World(seed)
    world.faults = Faults()
    for actor in world.actors.values():
        actor.state.policy = replace(
            actor.state.policy, unload_timeout=1e6, stop_timeout_s=1e6, drain_timeout_s=None
        )
    compared = 0
    for model in (*world.models, *world.models, *world.models):
        slept = {name: actor.state.residue_last for name, actor in world.actors.items()}
        seen = rehearsed(world, model)
        since = world.journal.seq
        world.next_id += 1
        ask = world.asks[world.next_id] = Ask(model)
        world.mail(model, msg.Acquire(world.next_id))
        _settle(world, until=lambda ask=ask: ask.answered)  # type: ignore[misc]
        records = [r for r in world.journal.records() if r.seq > since]
        _settle(world, until=lambda: not any(a.state.serving for a in world.actors.values()))
        _settle(world, until=lambda: not any(_moving(a.state) for a in world.actors.values()))
        if seen.outcome == "refused":
            continue
        if any(not slept[name] for name, level in _evicted(seen.records) if level < 3):
            continue  # what it will keep of its memory is not known before it has slept once
        assert _evicted(seen.records) == _evicted(records), (seed, model)
        assert seen.outcome == next(r.event.how for r in records if isinstance(r.event, ev.AskAdmitted))
        compared += 1
    assert compared


def _evicted(records: Iterable[Record]) -> list[tuple[str, int]]:
    return [(r.event.model, r.event.level) for r in records if isinstance(r.event, bk.EvictionOrdered)]


def _moving(s: State) -> bool:
    return s.slot_state != "" or (s.phase is Phase.AWAKE and not s.footprint_bytes)


def _settle(world: World, until: Callable[[], bool]) -> None:
    """All mail is delivered before time passes, as in a System; then it passes, until that is so."""
    while True:
        for name, box in world._mail.items():
            while box:
                actor: Any = world.broker if name == BROKER else world.actors[name]
                actor.turn(*box.popleft())
        if any(world._mail.values()):
            continue
        if until():
            return
        assert world._agenda, "nothing more will happen"
        at, _, _, action = heapq.heappop(world._agenda)
        world.now = max(world.now, at)
        action()
