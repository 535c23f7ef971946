"""What happens to models that nobody asks for, and to those whose wakes fail, over a real server with fake engines."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import Vllama, wait_until

from tests.api.caches import CHAT
from tests.api.rig import BOUND_S, Rig

Make = Callable[..., Rig]


@pytest.fixture
def serve(vllama_server: Callable[..., Vllama], fake_cache: Path, tmp_path: Path) -> Iterator[Make]:
    made: list[Rig] = []

    def rig(**settings: str) -> Rig:
        faults = tmp_path / "faults"
        env = {"FAKE_VLLM_FAULTS_FILE": str(faults), "VLLAMA_BACKOFF_S": "0", "VLLAMA_RESTARTS_MAX": "20"}
        made.append(Rig(vllama_server(fake_cache, fake=True, env=env | settings), faults))
        return made[-1]

    yield rig
    for each in made:
        each.close()


def text_of(rig: Rig) -> str:
    answer = rig.chat(CHAT, temperature=0)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_a_stream_is_a_use_until_its_last_byte(serve: Make) -> None:
    rig = serve(VLLAMA_UNLOAD_TIMEOUT="0.3")
    with rig.stream(CHAT, gate="g") as (_, lines):
        next(lines)
        looked = rig.kinds(CHAT).count("TimerArmed")
        assert wait_until(lambda: rig.kinds(CHAT).count("TimerArmed") >= looked + 2, BOUND_S)
        assert rig.view(CHAT)["phase"] == "awake"  # overdue twice, and it was looked at each time
        assert "DescentSet" not in rig.kinds(CHAT)
        rig.let(CHAT, "g")
        assert list(lines)[-1] == "[DONE]"
    rig.until(CHAT, phase="asleep", level=2)
    assert rig.stats(CHAT)["sleeps_while_running"] == 0


def test_a_sleeper_that_nobody_wants_is_stopped(serve: Make) -> None:
    rig = serve(VLLAMA_UNLOAD_TIMEOUT="0.3", VLLAMA_STOP_TIMEOUT_S="0.3")
    text_of(rig)
    rig.until(CHAT, phase="stopped")
    assert rig.kinds(CHAT).count("EngineSlept") == 1
    assert rig.view(CHAT)["error"] == ""
    text_of(rig)


def test_two_mismatches_after_level_1_and_the_model_goes_deeper_instead(serve: Make) -> None:
    rig = serve()
    before = text_of(rig)
    for _ in range(2):
        rig.faults()
        assert rig.command("sleep", CHAT, level=1).json()["level"] == 1
        rig.faults(f"{CHAT}:garbage")
        assert text_of(rig) == before  # the probe has met it, and the engine was started anew
    rig.faults()
    assert rig.kinds(CHAT).count("WakeMissed") == 2
    assert "level 1 is not used any more: 2 wakes from it failed" in rig.server.cli("ps").stdout
    deeper = rig.command("sleep", CHAT, level=1).json()
    assert (deeper["phase"], deeper["level"]) == ("asleep", 2)
    assert text_of(rig) == before
    assert rig.kinds(CHAT).count("EngineSpawned") == 3


def test_an_engine_whose_residue_grew_says_so_and_is_stopped_at_its_next_sleep(serve: Make) -> None:
    rig = serve(VLLAMA_RESIDUE_GROWTH_MAX_BYTES="64MiB")
    text_of(rig)
    assert rig.command("sleep", CHAT, level=2).json()["phase"] == "asleep"
    text_of(rig)
    rig.faults(f"{CHAT}:leak_bytes={2**27}")
    assert rig.command("sleep", CHAT, level=2).json()["phase"] == "asleep"
    rig.faults()
    assert "is stopped at its next sleep" in rig.view(CHAT)["notes"][0]
    text_of(rig)
    stopped = rig.command("sleep", CHAT, level=2).json()
    assert stopped["phase"] == "stopped"
    assert "stopped at its next sleep" in stopped["note"]
    text_of(rig)
    assert rig.view(CHAT)["notes"] == []
