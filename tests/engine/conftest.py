"""Everything in this folder needs the real vLLM: it is marked `engine` and gets the time that real engines take."""

from pathlib import Path

import pytest

TIMEOUT_S = 600
HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.engine)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))
