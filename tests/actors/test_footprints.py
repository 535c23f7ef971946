"""Footprints: what was measured replaces the guessed part of a need, by configuration and device; the file is no state."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.actors.play import play
from vllama.actors.calibration import Calibration
from vllama.actors.core import messages as msg
from vllama.actors.core.instance_state import State
from vllama.actors.footprints import CONFIGURATIONS_MAX, Footprints
from vllama.config import ModelConfig, VllamaConfig
from vllama.host.command import engine_argv
from vllama.host.estimate import CPU_OVERHEAD_BYTES, CUDA_MARGIN_BYTES, Footprint
from vllama.host.host import DeviceInfo, ModelFiles

GIB, MIB = 2**30, 2**20
SHAPE = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 256}
FILES = ModelFiles("o/m", "/m", "r", "chat", "X", GIB, 512, SHAPE, 0.0)
CPU = DeviceInfo("cpu", "cpu", 0, "RAM", 8 * GIB)
GPU = DeviceInfo("G0", "cuda", 0, "GPU", 24 * GIB)


def calibration(
    folder: Path, *devices: DeviceInfo, versions: dict[str, str] | None = None, **config: Any
) -> Calibration:
    made = Calibration(VllamaConfig(config_dir=folder, **config), {d.id: d for d in devices or (CPU,)})
    assert asyncio.run(made.recall(versions or {"vllm": "1"})) == ""
    return made


def ran(
    made: Calibration, size: int, *, lease: int = 0, device: DeviceInfo = CPU, **model: Any
) -> msg.Need | None:
    """An engine was started under this lease (0: all that it needs) and weighed; the model's need from then on."""
    entry = ModelConfig(**model)
    made.launching(1, FILES, entry, (device,), lease or made.need(FILES, entry).bytes)
    made.up("o/m", 1)
    found = made.weighed("o/m", 1, size)
    asyncio.run(made.keep())
    return found


def argument(made: Calibration, lease: int, device: DeviceInfo = CPU) -> int:
    """The KV cache of the next start."""
    config = VllamaConfig()
    known = made.launching(2, FILES, ModelConfig(), (device,), lease)
    argv = engine_argv(config, ModelConfig(), FILES, (device,), lease, footprint=known)
    return int(argv[argv.index("--kv-cache-memory-bytes") + 1])


def test_the_next_lease_is_what_was_measured_also_for_the_next_server(tmp_path: Path) -> None:
    made = calibration(tmp_path)
    first = made.need(FILES, ModelConfig())
    kv = first.bytes - first.weights_bytes - CPU_OVERHEAD_BYTES
    measured = first.bytes - 100 * MIB
    assert ran(made, measured) == msg.Need(measured, first.weights_bytes)
    assert argument(made, measured) == kv  # the cache is as large as it was, though the lease is smaller
    assert argument(made, measured - 10 * MIB) == max(kv - 10 * MIB, MIB)
    later = calibration(tmp_path)
    assert later.need(FILES, ModelConfig()).bytes == measured
    assert argument(later, measured) == kv


def test_a_lease_that_was_cut_down_does_not_shrink_the_next_one(tmp_path: Path) -> None:
    made = calibration(tmp_path)
    full = made.need(FILES, ModelConfig()).bytes
    need = ran(made, full - MIB, lease=full - MIB)  # a MiB less of KV cache, and a MiB less was measured
    assert need is not None
    assert need.bytes == full


@pytest.mark.parametrize(
    ("model", "versions", "config"),
    [
        ({"max_model_len": 128}, {}, {}),
        ({"extra_args": {"seed": 1}}, {}, {}),
        ({"env": {"X": "secret"}}, {}, {}),
        ({}, {"vllm": "2"}, {}),
        ({}, {}, {"kv_default_max": 2**27}),
    ],
)
def test_another_configuration_is_estimated_anew(
    tmp_path: Path, model: dict[str, Any], versions: dict[str, str], config: dict[str, Any]
) -> None:
    ran(calibration(tmp_path), 3 * GIB)
    other = calibration(tmp_path, versions=versions, **config)
    assert other.need(FILES, ModelConfig(**model)).bytes < 3 * GIB
    assert b"secret" not in (tmp_path / "footprints.json").read_bytes()


def test_what_the_engine_does_not_hear_of_is_the_same_configuration(tmp_path: Path) -> None:
    ran(calibration(tmp_path), 3 * GIB)
    assert calibration(tmp_path).need(FILES, ModelConfig(pinned=True, aliases=("x",))).bytes == 3 * GIB


def test_gpus_keep_a_margin_and_are_known_by_device(tmp_path: Path) -> None:
    made = calibration(tmp_path, GPU)
    need = ran(made, 5 * GIB, device=GPU)
    assert need is not None
    assert need.bytes == 5 * GIB + CUDA_MARGIN_BYTES
    assert ran(made, 5 * GIB, device=GPU) == need  # it does not grow by the margin each time
    assert (
        calibration(tmp_path, DeviceInfo("G9", "cuda", 0, "GPU", 24 * GIB)).need(FILES, ModelConfig()) != need
    )


def test_a_share_that_the_user_gave_and_nonsense_change_nothing(tmp_path: Path) -> None:
    made = calibration(tmp_path)
    before = made.need(FILES, ModelConfig(gpu_memory_utilization=0.5))
    assert ran(made, 3 * GIB, gpu_memory_utilization=0.5) == before
    assert ran(made, 5) == made.need(FILES, ModelConfig())  # less than its weights


def test_only_an_engine_that_is_awake_has_a_footprint(tmp_path: Path) -> None:
    made = calibration(tmp_path)
    made.launching(1, FILES, ModelConfig(), (CPU,), GIB)
    assert made.weighed("o/m", 1, 3 * GIB) is None  # not up yet
    made.up("o/m", 1)
    assert made.weighed("o/m", 2, 3 * GIB) is None  # another run
    assert made.weighed("o/m", 1, 0) is None  # could not be measured
    made.down("o/m")
    assert made.weighed("o/m", 1, 3 * GIB) is None  # on its way down
    made.slept("o/m", 1, 2, GIB)
    assert made.of(FILES, ModelConfig())["cpu"] == Footprint(level_2_bytes=GIB)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"v": 2}', '{"v": 1, "salt": "", "models": {}}', '{"v": 1, "salt": "zz", "models": {}}',
             '{"v": 1, "salt": "0011223344556677", "models": {"o/m": {"d": {"at": 1, "devices": {"cpu": {"awake_bytes": -1}}}}}}']
)  # fmt: skip
def test_a_broken_file_is_ignored_with_a_word_and_replaced(tmp_path: Path, text: str) -> None:
    file = tmp_path / "footprints.json"
    file.write_text(text)
    made = Calibration(VllamaConfig(config_dir=tmp_path), {"cpu": CPU})
    assert str(file) in asyncio.run(made.recall({"vllm": "1"}))
    ran(made, 3 * GIB)
    assert json.loads(file.read_text())["models"].keys() == {"o/m"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["footprints.json"]
    assert calibration(tmp_path).need(FILES, ModelConfig()).bytes == 3 * GIB


def test_the_file_may_be_deleted_and_is_written_only_for_news(tmp_path: Path) -> None:
    made = calibration(tmp_path)
    file = tmp_path / "footprints.json"
    ran(made, 3 * GIB)
    file.unlink()
    ran(made, 3 * GIB)
    assert not file.exists()
    ran(made, 4 * GIB)
    assert calibration(tmp_path).need(FILES, ModelConfig()).bytes == 4 * GIB


def test_a_file_that_cannot_be_written_costs_nothing_but_a_warning(tmp_path: Path, caplog: Any) -> None:
    folder = tmp_path / "file"
    folder.write_text("")
    made = Calibration(VllamaConfig(config_dir=folder), {"cpu": CPU})
    asyncio.run(made.recall({}))
    assert ran(made, 3 * GIB) is not None
    assert "footprints are not kept" in caplog.text


def test_old_configurations_are_forgotten(tmp_path: Path) -> None:
    kept = Footprints(tmp_path / "footprints.json")
    for number in range(2 * CONFIGURATIONS_MAX):
        kept.awake(kept.key("o/m", {"n": number}), ("cpu",), GIB, 0)
    tree = json.loads(kept.take_news())
    assert len(tree["models"]["o/m"]) == CONFIGURATIONS_MAX
    assert kept.of(kept.key("o/m", {"n": 2 * CONFIGURATIONS_MAX - 1}))
    assert kept.take_news() == ""


def test_the_core_asks_for_what_was_measured_from_the_next_start_on() -> None:
    story = play(State(model="m", need=msg.Need(GIB, 1)))
    story >> msg.Calibrate(msg.Need(3 * GIB, 1)) << None
    story >> msg.Acquire(1)
    (told,) = story._todo or ()
    assert told.message.bytes == 3 * GIB
