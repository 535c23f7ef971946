"""What an instance knows: what a copy shares with it, and what outlives a bug."""

from dataclasses import fields

from tests.actors.test_instance import awake, fresh
from vllama.actors.core import events as ev
from vllama.actors.core.instance_state import evolve
from vllama.actors.core.messages import Phase


def test_reset_forgets_all_but_the_fencing_numbers() -> None:
    story = awake()
    state = story.state
    numbers = (state.run, state.lease, state.slot, state.timer)
    evolve(state, ev.InstanceReset("bug"))
    assert state.phase is Phase.STOPPED
    assert (state.run, state.lease, state.slot, state.timer) == numbers


def test_a_copy_shares_nothing_that_changes():
    state = fresh()
    twin = state.copy()
    assert twin == state
    for each in fields(state):
        value = getattr(state, each.name)
        if isinstance(value, dict | list | set):
            assert getattr(twin, each.name) is not value, each.name
