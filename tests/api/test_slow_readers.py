"""A thousand clients that ask for long streams and do not read them, with the limits that a shell gives out."""

import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from serving import wait_until

from tests.api.front_rig import WAYS
from tests.api.raw_rig import WORKERS, RawRig, raw_request, serving_raw

READERS = 1000
TOTAL_BYTES_MAX = 200_000_000  # issue 4
EVENTS = 256  # of 16 KB: many times what lies in buffers between an engine and a client
RECEIVE_BYTES = 4096
SETTLE_S = 90.0
FILES_OF_A_SHELL = 1024


@contextmanager
def open_files(soft: int) -> Iterator[None]:
    """What this process may have open, and what it starts begins with."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def open_files_of(pid: int) -> tuple[str, str]:
    """Soft and hard, as /proc has them."""
    (line,) = [each for each in Path(f"/proc/{pid}/limits").read_text().splitlines() if "open files" in each]
    soft, hard = line.split()[3:5]
    return soft, hard


@pytest.fixture(params=WORKERS, ids=["alone", "workers"])
def slow_rig(request: pytest.FixtureRequest, raw_server_of: Callable[[int], RawRig]) -> Iterator[RawRig]:
    """A server of its own that was started from a common shell; this process may have more open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3 * READERS:
        pytest.skip(f"this process may have {hard} files open, and this takes {3 * READERS}")
    rig = raw_server_of(request.param)
    with open_files(hard):
        yield rig


@pytest.fixture
def raw_server_of(tmp_path: Path, fake_cache: Path) -> Iterator[Callable[[int], RawRig]]:
    with ExitStack() as stack:

        def make(workers: int) -> RawRig:
            with open_files(FILES_OF_A_SHELL):
                return stack.enter_context(serving_raw(tmp_path / "server", fake_cache, workers))

        yield make


@pytest.mark.slow
@pytest.mark.parametrize("way", list(WAYS))
def test_a_thousand_slow_readers_are_held_within_200_mb_and_others_are_served(slow_rig: RawRig, way: str):
    for other in WAYS.values():
        slow_rig.chat(other)
    before = slow_rig.memory_bytes()
    seen: dict[str, int] = {}

    def grown() -> int:
        return slow_rig.memory_bytes() - before

    def still() -> bool:
        """All streams are held back and nothing moves any more."""
        assert grown() < TOTAL_BYTES_MAX, seen
        last, now = dict(seen), slow_rig.engine("/raw/streams")
        seen.update(now)
        return last == now and now["open"] == now["held"] == READERS

    with ExitStack() as stack:
        readers = []
        for number in range(READERS):
            reader = stack.enter_context(slow_rig.dial(RECEIVE_BYTES))
            reader.sendall(raw_request(f"slow-{number}", WAYS[way], then="flood", events=EVENTS))
            readers.append(reader)
        assert wait_until(still, SETTLE_S), seen
        for reader in readers:
            assert reader.recv(64)
        assert wait_until(still, SETTLE_S), seen
        for other in WAYS.values():
            slow_rig.chat(other)
        assert slow_rig.health() == 200
        assert grown() < TOTAL_BYTES_MAX
    slow_rig.until_idle()
    assert wait_until(lambda: slow_rig.engine("/raw/streams")["open"] == 0, SETTLE_S)
    for other in WAYS.values():
        slow_rig.chat(other)


@pytest.mark.slow
def test_a_server_lets_itself_and_its_workers_open_what_the_system_allows(slow_rig: RawRig):
    for pid in slow_rig.pids():
        soft, hard = open_files_of(pid)
        assert soft == hard
        assert int(soft) > FILES_OF_A_SHELL
