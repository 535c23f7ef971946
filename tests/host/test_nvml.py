"""The real NVML binding over the fake driver: devices, their memory, whose it is, and what may be wrong with them."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from tests.fakes.fake_gpu import GIB, FakeGpus
from vllama.host.nvml import GpuDevice, find_gpus

MIB = 2**20
ME = os.getpid()


@pytest.fixture
def gpus(gpu_driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpus]:
    """The driver loaded into this process, by the name that the binding looks for."""
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(gpu_driver)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "gpus"))
    yield FakeGpus(tmp_path / "gpus")
    pynvml.nvmlShutdown()


def found(limit: int | None = None, visible: str | None = None) -> tuple[GpuDevice, ...]:
    devices, why = find_gpus(limit, visible)
    assert devices, why
    assert why == ""
    return devices


def test_each_gpu_is_a_device_with_its_uuid(gpus: FakeGpus) -> None:
    uuids = [gpus.add(8 * GIB), gpus.add(16 * GIB, reserved=512 * MIB)]
    devices = [device.info for device in found()]
    assert [device.id for device in devices] == uuids
    assert [(device.kind, device.index, device.name) for device in devices] == [
        ("cuda", 0, "Fake GPU 0"),
        ("cuda", 1, "Fake GPU 1"),
    ]
    assert [device.total_bytes for device in devices] == [8 * GIB, 16 * GIB - 512 * MIB]


def test_used_by_a_tree_and_by_others(gpus: FakeGpus) -> None:
    gpus.add(8 * GIB, reserved=GIB)
    gpus.hold_by(ME, 2 * GIB)
    gpus.hold_by(os.getppid(), GIB)
    (device,) = found()
    sample = device.sample({"a": [2**22, ME], "b": [2**22 - 1]}, [])
    assert dict(sample.used_by) == {"a": 2 * GIB, "b": 0}
    assert (sample.total_bytes, sample.free_bytes, sample.estimated) == (7 * GIB, 4 * GIB, False)
    assert device.notes == ()


def test_an_older_driver_without_reserved_memory(gpus: FakeGpus) -> None:
    gpus.add(8 * GIB, reserved=GIB)
    gpus.set("old")
    gpus.hold_by(ME, 2 * GIB)
    (device,) = found()
    assert device.info.total_bytes == 8 * GIB
    assert device.sample({}, []).free_bytes == 5 * GIB


def test_the_limit_is_of_each_device_and_binds_us_alone(gpus: FakeGpus) -> None:
    gpus.add(8 * GIB)
    gpus.add(2 * GIB)
    big, small = found(limit=3 * GIB)
    assert (big.info.total_bytes, big.info.whole_bytes) == (3 * GIB, 8 * GIB)
    assert (small.info.total_bytes, small.info.whole_bytes) == (2 * GIB, 2 * GIB)
    gpus.hold_by(os.getppid(), 4 * GIB)
    assert big.sample({}, []).free_bytes == 3 * GIB
    gpus.hold_by(ME, 2 * GIB)
    assert big.sample({"a": [ME]}, []).free_bytes == GIB
    gpus.hold_by(os.getppid(), 6 * GIB)
    assert big.sample({"a": [ME]}, []).free_bytes == 0


def test_a_gpu_that_falls_off_the_bus_has_no_free_memory_and_comes_back(gpus: FakeGpus) -> None:
    uuid = gpus.add(8 * GIB)
    gpus.add(8 * GIB)
    gpus.hold_by(ME, GIB)
    first, second = found()
    gpus.set("gpu0/lost")
    sample = first.sample({"a": [ME]}, [])
    assert (sample.free_bytes, sample.total_bytes, dict(sample.used_by)) == (0, 8 * GIB, {"a": 0})
    (note,) = first.notes
    assert uuid in note
    assert "GPU is lost" in note
    assert second.sample({}, []).free_bytes == 8 * GIB
    assert second.notes == ()
    gpus.set("gpu0/lost", None)
    assert first.sample({}, []).free_bytes == 7 * GIB
    assert first.notes == ()


def test_one_that_is_lost_from_the_beginning_is_left_out(gpus: FakeGpus) -> None:
    gpus.add(8 * GIB)
    gpus.add(8 * GIB)
    gpus.set("gpu0/lost")
    (device,) = found()
    assert device.info.index == 1


def test_mig_devices_stand_for_their_gpu(gpus: FakeGpus) -> None:
    gpus.add(80 * GIB, mig=(40 * GIB, 20 * GIB))
    gpus.add(80 * GIB)
    gpus.set("gpu1/no_mig")
    gpus.hold_by(ME, GIB, "gpu0/mig1")
    devices = found()
    assert [(d.info.id, d.info.index) for d in devices] == [
        ("MIG-00-fake", 0), ("MIG-01-fake", 1), ("GPU-00000001-fake", 2),
    ]  # fmt: skip
    assert [d.sample({"a": [ME]}, []).used_by["a"] for d in devices] == [0, GIB, 0]
    assert [d.sample({"a": [ME]}, []).free_bytes for d in devices] == [40 * GIB, 19 * GIB, 80 * GIB]


@pytest.mark.parametrize(
    ("visible", "indices"),
    [(None, [0, 1, 2]), ("1", [1]), ("2,0", [0, 2]), ("GPU-00000001", [1]), ("GPU-00000002-fake, 0", [0, 2])],
)
def test_what_cuda_visible_devices_hides_stays_hidden(
    gpus: FakeGpus, visible: str | None, indices: list[int]
) -> None:
    for _ in range(3):
        gpus.add(GIB)
    assert [device.info.index for device in found(visible=visible)] == indices


@pytest.mark.parametrize("visible", ["", "-1", "7"])
def test_all_hidden_is_said(gpus: FakeGpus, visible: str) -> None:
    gpus.add(GIB)
    devices, why = find_gpus(None, visible)
    assert devices == ()
    assert "CUDA_VISIBLE_DEVICES" in why
    assert "CPU" in why


def test_hidden_processes_are_estimated_from_the_device(gpus: FakeGpus) -> None:
    """In a container: our engines' memory is what changed while they moved."""
    gpus.add(8 * GIB)
    gpus.set("hide_pids")
    other, a, b = os.getppid(), ME, 1
    gpus.hold_by(other, GIB)
    (device,) = found()
    device.moving("a", {})
    gpus.hold_by(a, 2 * GIB)
    sample = device.sample({"a": [a]}, [])
    assert (dict(sample.used_by), sample.free_bytes, sample.estimated) == ({"a": 2 * GIB}, 5 * GIB, True)
    assert "container" in device.notes[0]
    gpus.hold_by(a, GIB)  # asleep, seen only when the next one moves
    device.moving("b", {"a": [a]})
    gpus.hold_by(b, 3 * GIB)
    assert dict(device.sample({"a": [a], "b": [b]}, []).used_by) == {"a": GIB, "b": 3 * GIB}
    # b is killed and its memory is late: nobody's, and not a's.
    assert dict(device.sample({"a": [a]}, []).used_by) == {"a": GIB}
    gpus.hold_by(b, 0)
    sample = device.sample({"a": [a]}, [])
    assert (dict(sample.used_by), sample.free_bytes) == ({"a": GIB}, 6 * GIB)
    gpus.hold_by(a, 0)
    assert device.sample({}, []).estimated is False
    assert device.notes == ()


def test_what_a_dead_neighbour_has_not_given_back_is_not_the_livings(gpus: FakeGpus) -> None:
    gpus.add(8 * GIB)
    gpus.set("hide_pids")
    (device,) = found()
    for name, pid in (("b", 1), ("a", ME)):
        device.moving(name, {"b": [1]} if name == "a" else {})
        gpus.hold_by(pid, GIB)
    assert dict(device.sample({"a": [ME], "b": [1]}, []).used_by) == {"a": GIB, "b": GIB}
    assert dict(device.sample({"a": [ME]}, []).used_by) == {"a": GIB}  # a moved last, b's memory is late


def test_use_that_the_driver_keeps_to_itself_is_estimated_too(gpus: FakeGpus) -> None:
    gpus.add(8 * GIB)
    gpus.set("no_pid_bytes")
    (device,) = found()
    device.moving("a", {})
    gpus.hold_by(ME, 2 * GIB)
    assert dict(device.sample({"a": [ME]}, []).used_by) == {"a": 2 * GIB}


def test_what_the_driver_shows_is_never_estimated(gpus: FakeGpus) -> None:
    gpus.add(8 * GIB)
    (device,) = found()
    device.moving("a", {})
    gpus.hold_by(ME, 2 * GIB)
    gpus.hold_by(os.getppid(), GIB)
    sample = device.sample({"a": [ME]}, [])
    assert (dict(sample.used_by), sample.estimated) == ({"a": 2 * GIB}, False)


FIND = "from vllama.host.nvml import find_gpus; import sys; print(*find_gpus(None, None), 'pynvml' in sys.modules)"


def find_elsewhere(env: dict[str, str]) -> str:
    """What another process finds: which library is loaded is a process's own."""
    done = subprocess.run(
        [sys.executable, "-c", FIND], env={"PATH": os.environ["PATH"]} | env,
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a driver")
def test_without_a_driver_engines_run_on_cpu_and_the_binding_is_not_even_imported() -> None:
    line = find_elsewhere({})
    assert line.startswith("() no NVIDIA driver (libnvidia-ml.so.1")
    assert line.endswith("engines run on CPU False")


def test_a_broken_driver_is_said(gpu_driver: Path, tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path / "gpus")
    gpus.add(GIB)
    gpus.set("broken", "18")
    line = find_elsewhere(gpus.env(gpu_driver))
    assert "() the NVIDIA driver does not work (NVML: RM has detected an NVML/RM version mismatch.)" in line
    gpus.set("broken", "9")
    assert "Driver" in find_elsewhere(gpus.env(gpu_driver))
    gpus.set("broken", None)
    assert "GpuDevice" in find_elsewhere(gpus.env(gpu_driver))


def test_a_driver_without_gpus_and_one_that_is_no_driver(gpu_driver: Path, tmp_path: Path) -> None:
    assert "() the NVIDIA driver shows no GPU" in find_elsewhere(FakeGpus(tmp_path / "gpus").env(gpu_driver))
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    assert "file too short" in find_elsewhere({"LD_LIBRARY_PATH": str(tmp_path)})
