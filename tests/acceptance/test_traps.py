"""The ways in which vLLM is known to misbehave (design/vllm.md, section 6), each by its number, over a real server.

Tests elsewhere that hold one carry the marker `trap(number)`; the last test here holds the list to the page.
"""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import Vllama, descendants, stat_of, wait_until

from tests.acceptance.gpu_rig import A, B, GpuRig, rigs
from tests.api.caches import CHAT, EMBED
from tests.api.rig import Rig, error_of
from tests.fakes.fake_gpu import GIB

ROOT = Path(__file__).resolve().parents[2]
BOUND_S = 30


@pytest.fixture
def rig(vllama_server: Callable[..., Vllama], fake_cache: Path, tmp_path: Path) -> Iterator[Rig]:
    faults = tmp_path / "faults"
    env = {"FAKE_VLLM_FAULTS_FILE": str(faults), "VLLAMA_BACKOFF_S": "0", "VLLAMA_RESTARTS_MAX": "20"}
    rig = Rig(vllama_server(fake_cache, fake=True, env=env), faults)
    yield rig
    rig.close()


@pytest.fixture
def on_gpus(
    vllama_server: Callable[..., Vllama], tmp_path: Path, gpu_driver: Path
) -> Iterator[Callable[..., GpuRig]]:
    yield from rigs(vllama_server, tmp_path, gpu_driver)


def text_of(rig: Rig, model: str = CHAT) -> str:
    answer = rig.chat(model, temperature=0)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def slept(rig: Rig, level: int = 2, model: str = CHAT) -> dict:
    return rig.command("sleep", model, level=level).raise_for_status().json()


def test_trap_1_a_wake_without_its_weights_answers_nobody(rig: Rig) -> None:
    before = text_of(rig)
    assert slept(rig)["level"] == 2
    rig.faults(f"{CHAT}:garbage")
    assert text_of(rig) == before  # from an engine started anew: the garbled one was found by its probe
    rig.faults()
    assert rig.kinds(CHAT).count("EngineSpawned") == 2
    assert slept(rig)["level"] == 2
    assert text_of(rig) == before
    assert rig.stats(CHAT)["reloads"] == 1  # the three steps


def test_trap_2_a_model_that_cannot_reload_is_started_anew_and_sleeps_at_level_2_no_more(rig: Rig) -> None:
    before = text_of(rig)
    rig.faults(f"{CHAT}:fail_reload")
    for _ in range(2):
        assert slept(rig)["level"] == 2
        assert text_of(rig) == before
    assert slept(rig)["phase"] == "stopped"
    assert rig.chat(CHAT).headers["x-vllama-state"] == "cold"


def test_trap_5_and_6_nothing_sleeps_with_requests_running_and_a_sleeper_gets_none(rig: Rig) -> None:
    rig.faults(f"{CHAT}:crash_on_request_asleep")
    with rig.stream(CHAT, gate="g") as (_, lines), ThreadPoolExecutor(2) as pool:
        next(lines)
        sleeping = pool.submit(slept, rig)
        rig.until(CHAT, phase="draining")
        late = pool.submit(rig.chat, CHAT)
        rig.until(CHAT, waiting=1)
        rig.let(CHAT, "g")
        assert list(lines)[-1] == "[DONE]"
        assert sleeping.result(BOUND_S)["phase"] == "asleep"
        assert late.result(BOUND_S).headers["x-vllama-state"] == "wake"
    stats = rig.stats(CHAT)
    assert (stats["sleeps"], stats["sleeps_while_running"], stats["requests_while_asleep"]) == (1, 0, 0)


def test_trap_13_a_wake_that_runs_out_of_memory_is_no_engine_any_more(rig: Rig) -> None:
    before = text_of(rig)
    slept(rig)
    rig.faults(f"once:{CHAT}:fail_wake")
    assert text_of(rig) == before
    assert rig.kinds(CHAT).count("EngineSpawned") == 2  # killed, never asked to wake again
    assert rig.stats(CHAT)["wakes"] == 0


def test_trap_17_the_slow_first_level_1_sleep_is_taken_at_the_first_idle_moment(
    vllama_server: Callable[..., Vllama], fake_cache: Path, tmp_path: Path
) -> None:
    rig = Rig(vllama_server(fake_cache, fake=True, env={"VLLAMA_SLEEP_LEVEL": "1"}), tmp_path / "faults")
    try:
        text_of(rig)
        assert wait_until(lambda: "EngineSlept" in rig.kinds(CHAT), BOUND_S)
        rig.until(CHAT, phase="awake")  # and it is up again by itself
        assert rig.stats(CHAT)["sleeps"] == rig.stats(CHAT)["wakes"] == 1
    finally:
        rig.close()


def test_trap_20_level_1_cannot_become_level_2_so_it_is_stopped(rig: Rig) -> None:
    text_of(rig)
    assert slept(rig, 1)["level"] == 1
    deeper = slept(rig, 2)
    assert deeper["phase"] == "stopped"
    assert "1" in deeper["note"]
    assert rig.chat(CHAT).headers["x-vllama-state"] == "cold"


def test_trap_22_a_residue_that_grows_by_the_cycle_ends_the_process(
    on_gpus: Callable[..., GpuRig],
) -> None:
    rig = on_gpus(16 * GIB)
    rig.ok(A)
    rig.asleep(A)
    rig.ok(A)
    rig.faults(f"{A}:leak_bytes={2 * GIB}")
    rig.asleep(A)
    assert rig.view(A)["residue_bytes"] > 2 * GIB
    rig.faults()
    rig.ok(A)
    assert rig.command("sleep", A, level=2).json()["phase"] == "stopped"
    rig.ok(A)
    rig.asleep(A)
    assert rig.view(A)["residue_bytes"] < GIB


def test_trap_29_health_of_a_sleeper_is_200_and_is_not_believed(rig: Rig) -> None:
    text_of(rig)
    slept(rig)
    assert rig.engine(CHAT, "GET", "/health").status_code == 200
    assert rig.view(CHAT)["phase"] == "asleep"
    assert rig.http.get(f"/v1/models/{CHAT}").json()["status"]["value"] == "sleeping"
    assert rig.chat(CHAT).headers["x-vllama-state"] == "wake"
    assert rig.stats(CHAT)["requests_while_asleep"] == 0


def test_trap_30_a_killed_api_server_takes_its_workers_along(rig: Rig) -> None:
    rig.faults(f"{CHAT}:children=2")
    text_of(rig)
    pid = rig.stats(CHAT)["pid"]
    workers = descendants(pid)
    assert len(workers) == 2
    rig.faults()
    os.kill(pid, signal.SIGKILL)
    rig.until(CHAT, phase="stopped")  # told only when the whole tree is gone
    assert [proc for proc in workers if (stat := stat_of(proc.pid)) and stat.proc == proc] == []
    text_of(rig)


def test_trap_31_where_sleep_frees_nothing_pressure_stops_the_engine(
    on_gpus: Callable[..., GpuRig],
) -> None:
    rig = on_gpus(3 * GIB)
    rig.ok(A)
    rig.faults(f"{A}:keep_memory")
    rig.ok(B)  # A's sleep has given back too little
    rig.until(A, phase="stopped")
    assert [event["level"] for event in rig.events("EvictionOrdered")] == [1, 3]


def test_trap_37_a_server_that_ends_while_engines_start_leaves_no_child_of_theirs(rig: Rig) -> None:
    rig.faults(f"{CHAT}:children=2", f"{CHAT}:hang_loading")
    answers: list[int] = []
    caller = threading.Thread(target=lambda: answers.append(rig.chat(CHAT).status_code))
    caller.start()
    rig.until(CHAT, phase="starting")
    assert wait_until(lambda: len(descendants(rig.view(CHAT)["pid"])) == 2, BOUND_S)
    rig.server.end()  # SIGTERM: exits 0, and nothing is left of it
    caller.join(BOUND_S)
    assert answers == [503]


def test_trap_40_an_engine_that_dies_at_its_first_request_has_not_started(rig: Rig) -> None:
    rig.faults(f"{CHAT}:die_on_first_request")
    answer = rig.chat(CHAT)
    assert answer.status_code == 502
    assert "Unsupported CPU attention configuration" in error_of(answer)["message"]
    assert "EngineRose" not in rig.kinds(CHAT)
    assert rig.http.post("/v1/embeddings", json={"model": EMBED, "input": "a"}).status_code == 200


def test_every_trap_of_the_page_has_a_test() -> None:
    page = (ROOT / "design" / "vllm.md").read_text(encoding="utf-8")
    section = page.partition("## 6. Traps")[2].partition("\n## ")[0]
    traps = {int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    assert len(traps) > 20
    held: set[int] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        for marked in re.findall(r"^@pytest\.mark\.trap\(([\d, ]+)\)", text, re.MULTILINE):
            held |= {int(number) for number in marked.split(",")}
        for name in re.findall(r"^def test_trap_(\d+(?:_and_\d+)*)_", text, re.MULTILINE):
            held |= {int(number) for number in name.split("_and_")}
    assert held == traps
