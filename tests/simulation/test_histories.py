"""Thousands of histories under the laws. A failing seed is one line in test_bugs.py once it is understood."""

import pytest

from tests.simulation.workers import WorkersWorld
from tests.simulation.world import World

PARTS = 4  # run side by side where there are processors


@pytest.mark.parametrize("part", range(PARTS))
def test_laws_hold_in_every_history(histories: int, part: int) -> None:
    for seed in range(part, histories, PARTS):
        World(seed).run()


@pytest.mark.parametrize("part", range(2))
def test_laws_hold_when_costs_decide(histories: int, part: int) -> None:
    for seed in range(part, histories, 2):
        World(seed, policy="cost", configuring=seed % 4 == 0).run()


@pytest.mark.parametrize("part", range(2))
def test_laws_hold_while_the_configuration_changes(histories: int, part: int) -> None:
    for seed in range(part, histories // 2, 2):
        World(seed, configuring=True).run()


@pytest.mark.parametrize("part", range(2))
def test_laws_hold_with_worker_processes(histories: int, part: int) -> None:
    for seed in range(part, histories // 2, 2):
        WorkersWorld(seed).run()
