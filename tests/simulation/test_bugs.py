"""Bugs that the simulator has found, one line each: a seed that showed it, and what it was."""

import pytest

from tests.simulation.world import World

SEEDS = {
    (917, "lru"): "memory that a dead engine had not yet returned was hidden behind its model's next lease",
    (34, "lru"): "an idle timer that rang a hair early was armed again for the hair, for ever",
    (588, "cost"): "what a sleeper had not returned was forgotten when its wake was granted",
}


@pytest.mark.parametrize(("seed", "policy"), SEEDS)
def test_found_once(seed: int, policy: str) -> None:
    World(seed, policy=policy).run()
