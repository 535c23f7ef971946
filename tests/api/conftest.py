from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.caches import make_cache
from tests.api.front_rig import WAYS
from tests.api.raw_rig import WORKERS, RawRig, serving_raw
from tests.api.rig import Rig


@pytest.fixture(scope="session")
def fake_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with one model of each kind, for fake engines."""
    return make_cache(tmp_path_factory.mktemp("fake") / "hub")


@pytest.fixture
def make_rig(vllama_server, fake_cache: Path, tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """`make_rig(env={...}, faults=[...])`: a server with fake engines. `own_group=True` gives it a process group."""
    rigs: list[Rig] = []

    def make(*faults: str, env: dict[str, str] | None = None, kind: type[Rig] = Rig, **more: Any) -> Rig:
        file = tmp_path / f"faults-{len(rigs)}"
        file.write_text("\n".join(faults))
        env = {"FAKE_VLLM_FAULTS_FILE": str(file)} | (env or {})
        rigs.append(kind(vllama_server(fake_cache, fake=True, env=env, **more), file))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The headers that choose the way."""
    return WAYS[request.param]


@pytest.fixture(scope="module", params=WORKERS, ids=["alone", "workers"])
def raw_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fake_cache: Path
) -> Iterator[RawRig]:
    """One server for all tests of a module, with and without workers; its engine does what each request says."""
    with serving_raw(tmp_path_factory.mktemp("raw") / "server", fake_cache, request.param) as rig:
        yield rig
