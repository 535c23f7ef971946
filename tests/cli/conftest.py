from pathlib import Path

import pytest

from tests.api.caches import make_cache


@pytest.fixture(scope="session")
def fake_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with one model of each kind, for fake engines."""
    return make_cache(tmp_path_factory.mktemp("fake") / "hub")
