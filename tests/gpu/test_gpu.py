"""What vllama promises on a machine with NVIDIA GPUs: `make test-gpu`."""

import os
import signal
from collections.abc import Callable

import pytest

from tests.gpu.machine import CHAT, EMBED, Machine, same

GIB, MIB = 2**30, 2**20
Row = Callable[..., None]


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("model", [CHAT, EMBED], ids=["chat", "embed"])
def test_sleep_gives_memory_back_and_answers_stay(machine: Machine, row: Row, model: str, level: int) -> None:
    empty = machine.used_bytes()
    served = machine.server(yaml=f"{model}:\n  devices: [0]\n")
    before, cold_s = served.ask(model)
    awake = machine.used_bytes() - empty
    assert awake > 300 * MIB
    done = served.command("sleep", model, level=level)
    assert done["phase"] == ("stopped" if level == 3 else "asleep"), done
    held = served.view(model)["residue_bytes"] if level < 3 else 0
    assert machine.comes_down_to(empty + held + 64 * MIB), "the memory did not come back"
    asleep = machine.used_bytes() - empty
    assert asleep < awake
    after, wake_s = served.ask(model)
    assert same(before, after), f"{before} is now {after}"
    row(
        level=level, model=model, cold_s=cold_s, wake_s=wake_s,
        awake_mib=awake // MIB, asleep_mib=asleep // MIB,
    )  # fmt: skip


def test_two_models_share_one_gpu(machine: Machine, row: Row) -> None:
    served = machine.server(yaml=f"{CHAT}:\n  devices: [0]\n{EMBED}:\n  devices: [0]\n")
    for model in (CHAT, EMBED, CHAT, EMBED):
        served.ask(model)
    assert {served.view(model)["phase"] for model in (CHAT, EMBED)} == {"awake"}
    assert served.view(CHAT)["devices"] == served.view(EMBED)["devices"]
    row(used_mib=machine.used_bytes() // MIB)


def test_two_models_that_do_not_fit_take_turns(machine: Machine, row: Row) -> None:
    yaml = f"{CHAT}:\n  devices: [0]\n{EMBED}:\n  devices: [0]\n"
    served = machine.server(yaml=yaml, VLLAMA_MEMORY_LIMIT="2200MiB")
    first = {model: served.ask(model)[0] for model in (CHAT, EMBED)}
    assert served.view(CHAT)["phase"] == "asleep"
    took = []
    for model in (CHAT, EMBED, CHAT, EMBED):
        answer, took_s = served.ask(model)
        assert same(first[model], answer)
        took.append(took_s)
    assert served.count("EngineSpawned", CHAT) == served.count("EngineSpawned", EMBED) == 1
    row(turns_s=took)


def test_a_killed_engine_gives_its_memory_back_and_is_started_again(machine: Machine, row: Row) -> None:
    empty = machine.used_bytes()
    served = machine.server(yaml=f"{CHAT}:\n  devices: [0]\n", VLLAMA_BACKOFF_S="0")
    before, _ = served.ask(CHAT)
    os.kill(served.view(CHAT)["pid"], signal.SIGKILL)
    served.until(CHAT, "stopped")
    assert machine.comes_down_to(empty + 64 * MIB), "the dead engine's memory did not come back"
    after, again_s = served.ask(CHAT)
    assert same(before, after)
    row(again_s=again_s)


def test_a_killed_server_leaves_no_process_and_no_memory(machine: Machine, row: Row) -> None:
    empty = machine.used_bytes()
    served = machine.server()
    served.ask(CHAT)
    served.server.look()
    served.server.stop(signal.SIGKILL)
    assert not served.server.wait_nothing_left(30)
    assert machine.comes_down_to(empty + 64 * MIB)
    row()


def test_one_model_over_two_gpus(machine: Machine, row: Row) -> None:
    machine.needs(2)
    # SmolLM2 has 9 heads: two ranks cannot share them, two stages of its layers can.
    parallel = "tensor_parallel_size: 2" if machine.fake else "extra_args: {pipeline_parallel_size: 2}"
    served = machine.server(yaml=f"{CHAT}:\n  devices: [0, 1]\n  {parallel}\n")
    empty = [machine.used_bytes(gpu) for gpu in (0, 1)]
    before, cold_s = served.ask(CHAT)
    assert len(served.view(CHAT)["devices"]) == 2
    for gpu in (0, 1):
        assert machine.used_bytes(gpu) > empty[gpu] + 200 * MIB
    assert served.command("sleep", CHAT, level=2)["phase"] == "asleep"
    after, wake_s = served.ask(CHAT)
    assert same(before, after)
    row(cold_s=cold_s, wake_s=wake_s)
