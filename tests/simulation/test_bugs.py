"""Bugs that the simulator has found, one line each: a seed that showed it, and what it was."""

import pytest

from tests.simulation.world import World

SEEDS = {
    917: "memory that a dead engine had not yet returned was hidden behind its model's next lease",
    34: "an idle timer that rang a hair early was armed again for the hair, for ever",
    1770: "what a sleeper had not returned was forgotten when its wake was granted",
}


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed}")
def test_found_once(seed: int) -> None:
    World(seed).run()
