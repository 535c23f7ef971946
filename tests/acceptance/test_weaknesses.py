"""Weaknesses of an earlier program by this name that nothing else shows ours to be free of (design/weaknesses.md), by number."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import Vllama

from tests.api.caches import CHAT, EMBED
from tests.api.rig import Rig, chat_body

BOUND_S = 30
MANY = 110  # more than the connections that an HTTP client's pool has by default


@pytest.fixture
def make(
    vllama_server: Callable[..., Vllama], fake_cache: Path, tmp_path: Path
) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def rig(**env: str) -> Rig:
        faults = tmp_path / "faults"
        server = vllama_server(fake_cache, fake=True, env={"FAKE_VLLM_FAULTS_FILE": str(faults)} | env)
        rigs.append(Rig(server, faults))
        return rigs[-1]

    yield rig
    for each in rigs:
        each.close()


def embed(rig: Rig) -> str:
    answer = rig.http.post("/v1/embeddings", json={"model": EMBED, "input": "a"}).raise_for_status()
    return answer.headers["x-vllama-state"]


def test_weakness_1_a_start_keeps_no_other_model_from_answering(make: Callable[..., Rig]) -> None:
    rig = make()
    embed(rig)
    rig.faults(f"{CHAT}:hang_at_start")
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(rig.chat, CHAT)
        rig.until(CHAT, phase="starting")
        assert embed(rig) == "warm"
        assert not starting.done()
        rig.faults()
        assert starting.result(BOUND_S).status_code == 200


def test_weakness_3_a_long_stream_is_use_until_its_last_byte(make: Callable[..., Rig]) -> None:
    rig = make(VLLAMA_UNLOAD_TIMEOUT="1")
    with rig.stream(CHAT, gate="g") as (_, lines):
        next(lines)
        embed(rig)
        rig.until(EMBED, phase="asleep")  # idle for so long as the stream has been silent
        assert (rig.view(CHAT)["phase"], rig.view(CHAT)["in_flight"]) == ("awake", 1)
        rig.let(CHAT, "g")
        assert list(lines)[-1] == "[DONE]"
    rig.until(CHAT, phase="asleep")


def test_weakness_21_no_pool_of_connections_bounds_the_requests_in_flight(make: Callable[..., Rig]) -> None:
    rig = make()
    assert rig.chat(CHAT).status_code == 200
    sockets = [rig.hanging(chat_body(CHAT, "g", stream=True)) for _ in range(MANY)]
    try:
        rig.waits_at(CHAT, "g", MANY)
        assert rig.view(CHAT)["in_flight"] == MANY
    finally:
        for sock in sockets:
            sock.close()
    rig.until(CHAT, in_flight=0)


def test_weakness_22_a_stopped_model_can_be_restarted(make: Callable[..., Rig]) -> None:
    rig = make()
    assert rig.command("restart", CHAT).json()["phase"] == "awake"
    assert rig.command("stop", CHAT).json()["phase"] == "stopped"
    assert rig.command("restart", CHAT).json()["phase"] == "awake"


def test_weakness_29_engines_listen_on_loopback_alone(make: Callable[..., Rig]) -> None:
    rig = make()
    assert rig.chat(CHAT).status_code == 200
    assert _listening(rig.view(CHAT)["port"]) == {"127.0.0.1"}


def _listening(port: int) -> set[str]:
    """The addresses on which somebody listens to this port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            address, _, number = local.rpartition(":")
            if state == "0A" and int(number, 16) == port:
                v4 = len(address) == 8
                found.add(".".join(str(byte) for byte in reversed(bytes.fromhex(address))) if v4 else address)
    return found
