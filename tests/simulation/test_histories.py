"""Thousands of histories under the laws. A failing seed is one line in test_bugs.py once it is understood."""

import pytest

from tests.simulation.world import World


def test_laws_hold_in_every_history(request: pytest.FixtureRequest) -> None:
    for seed in range(int(request.config.getoption("--histories"))):
        World(seed).run()


def test_laws_hold_while_the_configuration_changes(request: pytest.FixtureRequest) -> None:
    for seed in range(int(request.config.getoption("--histories")) // 2):
        World(seed, configuring=True).run()
