"""What a caller hears who cannot be served on these GPUs: what is needed, what is there, who has it, when to come again."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import Vllama

from tests.acceptance.gpu_rig import A, B, GpuRig, rigs
from tests.api.rig import error_of
from tests.fakes.fake_gpu import GIB

Make = Callable[..., GpuRig]


@pytest.fixture
def on_gpus(vllama_server: Callable[..., Vllama], tmp_path: Path, gpu_driver: Path) -> Iterator[Make]:
    yield from rigs(vllama_server, tmp_path, gpu_driver)


def test_no_memory_is_503_with_what_is_needed_what_is_free_who_has_the_rest_and_when(on_gpus: Make) -> None:
    sizes = {A: GIB, B: 2 * GIB}
    rig = on_gpus(3 * GIB, models=sizes, yaml=f"{A}:\n  pinned: true\n", VLLAMA_WAIT_TIMEOUT_S="1")
    rig.ok(A)
    refused = rig.chat(B)
    assert refused.status_code == 503, refused.text
    error = error_of(refused)
    assert error["code"] == "no_memory"
    (asked,) = rig.events("LeaseQueued")[1:]
    assert f"it needs {asked['bytes'] / GIB:.1f} GiB" in error["message"]
    assert "are free" in error["message"]
    assert f"{A} (held, " in error["message"]
    assert int(refused.headers["retry-after"]) >= 1
    assert rig.view(B)["phase"] == "stopped"
    assert rig.view(A)["phase"] == "awake"


def test_out_of_memory_with_nobody_to_evict_is_503_too_and_no_failed_start(on_gpus: Make) -> None:
    rig = on_gpus(4 * GIB)
    rig.faults("oom_at_start")
    refused = rig.chat(A)
    assert (refused.status_code, error_of(refused)["code"]) == (503, "no_memory")
    assert int(refused.headers["retry-after"]) >= 1
    assert rig.events("FailureCounted") == []
    rig.faults()
    rig.ok(A)


def test_weights_that_can_never_fit_are_refused_at_once_by_how_many_bytes(on_gpus: Make) -> None:
    rig = on_gpus(2 * GIB, models={A: 3 * GIB})
    refused = rig.chat(A)
    assert (refused.status_code, error_of(refused)["code"]) == (503, "no_memory")
    assert f"{GIB} bytes too few" in error_of(refused)["message"]


def test_an_entry_with_devices_that_are_not_there_changes_nothing_and_is_said(on_gpus: Make) -> None:
    rig = on_gpus(4 * GIB)
    rig.ok(A)
    said = rig.server.cli("assign", A, "--devices", "7")
    assert "names 7, but this machine has the GPUs 0" in said.stderr
    assert "names 7" in rig.http.get("/control/info").json()["models_file"]["problem"]
    rejected = [event["detail"] for event in rig.events("HostNoted") if event["what"] == "config_rejected"]
    assert len(rejected) == 1
    assert "names 7" in rejected[0]
    rig.ok(A)  # it serves on, as it was started
    assert rig.server.cli("assign", B, "--devices", "7").returncode == 0  # nobody has asked for it yet
    assert f"{B}: `devices` names 7" in rig.http.get("/control/info").json()["models_file"]["problem"]
    assert rig.chat(B).status_code == 400
    for model in (A, B):
        mended = rig.server.cli("assign", model, "--devices", "0")
        assert mended.returncode == 0
    assert mended.stderr == ""
    assert rig.http.get("/control/info").json()["models_file"]["problem"] == ""
    rig.ok(A, B)
