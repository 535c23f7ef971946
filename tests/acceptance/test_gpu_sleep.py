"""How models of GPUs sleep, over a real server: what level 1 takes of the host, and engines that cannot sleep."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import Vllama

from tests.acceptance.gpu_rig import A, B, GpuRig, rigs
from tests.fakes.fake_gpu import GIB

Make = Callable[..., GpuRig]


@pytest.fixture
def on_gpus(vllama_server: Callable[..., Vllama], tmp_path: Path, gpu_driver: Path) -> Iterator[Make]:
    yield from rigs(vllama_server, tmp_path, gpu_driver)


@pytest.mark.trap(18)
def test_level_1_sleepers_share_a_part_of_the_hosts_ram(on_gpus: Make) -> None:
    rig = on_gpus(8 * GIB, VLLAMA_SLEEP_RAM_MAX_BYTES="2GiB")
    rig.ok(A, B)
    slept = rig.command("sleep", A, level=1).json()
    assert (slept["level"], slept["note"]) == (1, "")
    deeper = rig.command("sleep", B, level=1).json()
    assert deeper["level"] == 2
    assert "sleep_ram_max_bytes" in deeper["note"]
    ps = rig.http.get("/control/ps").json()
    assert ps["ram"]["copies_of"] == [A]
    assert GIB < ps["ram"]["copies_bytes"] == rig.view(A)["copy_bytes"] <= ps["ram"]["sleep_ram_max_bytes"]
    shown = rig.server.cli("ps").stdout
    assert "of 2.0 GiB hold weights for level 1: gpu/a" in shown
    rig.ok(A)  # awake again, its copy stays pinned
    assert rig.command("sleep", B, level=1).json()["level"] == 2
    assert rig.command("stop", A).json()["phase"] == "stopped"
    rig.ok(B)
    assert rig.command("sleep", B, level=1).json()["level"] == 1


@pytest.mark.trap(24)
def test_a_load_that_sleep_mode_makes_too_big_is_tried_without_it(on_gpus: Make) -> None:
    rig = on_gpus(8 * GIB)
    rig.faults("sleep_mode_oom")
    rig.ok(A)  # trap 24: nobody is left to evict, and it serves without
    assert [event["why"] for event in rig.events("EngineGone", A)] == ["oom"]
    assert "enable-sleep-mode" not in rig.argv(A)
    assert "level 3 only" in rig.server.cli("ps").stdout
    slept = rig.command("sleep", A, level=2).json()
    assert slept["phase"] == "stopped"
    assert "level 3 only" in slept["note"]
    rig.ok(A)
    assert len(rig.events("EngineSpawned", A)) == 3  # the last one without sleep mode at once


def test_idle_models_go_as_deep_as_their_entry_says(on_gpus: Make) -> None:
    yaml = f"{A}:\n  unload_timeout: 0.3\n  unload_mode: 3\n{B}:\n  unload_timeout: 0.3\n"
    rig = on_gpus(8 * GIB, yaml=yaml)
    rig.ok(A, B)
    rig.until(A, phase="stopped")
    rig.until(B, phase="asleep", level=2)
