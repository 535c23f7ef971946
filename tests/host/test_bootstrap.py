"""What an engine's interpreter is prepared with, each in an interpreter of its own."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.host.proc_helpers import server
from vllama.host.forkable import obstacle

BOOTSTRAP = Path(__file__).resolve().parents[2] / "vllama" / "host" / "bootstrap.py"


def prepared(code: str, **env: str) -> Any:
    """The JSON that `code` prints in an interpreter whose main module is the bootstrap's as a spawned child sees it."""
    program = f"import runpy; runpy.run_path({str(BOOTSTRAP)!r}, run_name='__mp_main__')\nimport json\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_module_that_cannot_be_imported_is_absent_and_one_that_can_is_not(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "import torchvision.ops\nraise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    (tmp_path / "torchvision" / "ops.py").touch()
    (tmp_path / "torchaudio.py").touch()
    code = """
import importlib.util, sys
try:
    import torchvision
except ModuleNotFoundError as error:
    name = error.name
import torchaudio
print(json.dumps([name, importlib.util.find_spec("torchvision"), "torchvision.ops" in sys.modules]))
"""
    assert prepared(code, PYTHONPATH=str(tmp_path)) == ["torchvision", None, False]


def test_shared_memory_semaphores_and_temporary_files_are_named_after_the_launch(tmp_path):
    code = """
import multiprocessing, tempfile, os
from multiprocessing.shared_memory import SharedMemory
shm = SharedMemory(create=True, size=8)
name = shm.name
shm.close(); shm.unlink()
lock = multiprocessing.get_context("spawn").Lock()
print(json.dumps([name, lock._semlock.name, tempfile.gettempdir(), os.environ["VLLM_RPC_BASE_PATH"]]))
"""
    mark = f"vllama-test-{os.getpid()}.1"
    shm, semaphore, folder, sockets = prepared(code, VLLAMA_RUN_DIR=str(tmp_path), VLLAMA_SHM_MARK=mark)
    assert shm.startswith(f"{mark}.")
    assert semaphore.startswith(f"/{mark}.")
    assert folder == sockets == str(tmp_path)


@pytest.mark.trap(25)
def test_segments_that_would_not_be_given_back_are_switched_off():
    code = 'import os; print(json.dumps([os.environ.get("PYTORCH_CUDA_ALLOC_CONF"), os.environ.get("PYTORCH_ALLOC_CONF")]))'
    conf = "expandable_segments:True,max_split_size_mb:64"
    assert prepared(code, PYTORCH_CUDA_ALLOC_CONF=conf, PYTORCH_ALLOC_CONF="expandable_segments:True") == [
        "max_split_size_mb:64",
        None,
    ]


def test_terminal_signals_do_nothing_whoever_asks_for_them():
    code = """
import os, signal
heard = []
for signum in (signal.SIGINT, signal.SIGHUP):
    signal.signal(signum, lambda *_: heard.append(1))
    os.kill(os.getpid(), signum)
print(json.dumps(heard))
"""
    assert prepared(code) == []


def test_what_differs_from_the_zygotes_environment_is_no_fork_unless_it_is_read_late():
    base = {"HF_HOME": "/a"}
    assert obstacle((), {"HF_HOME": "/a", "CUDA_VISIBLE_DEVICES": "1"}, base) == ""
    assert "HF_HOME, OMP_NUM_THREADS" in obstacle((), {"OMP_NUM_THREADS": "2", "HF_HOME": "/b"}, base)
    assert "--numa-bind" in obstacle(("--model", "m", "--numa-bind"), {}, base)


def test_a_zygote_that_dies_again_and_again_while_loading_is_given_up(tmp_path):
    short = tmp_path / "python"
    short.write_text("#!/bin/sh\nexit 3\n")
    short.chmod(0o755)

    async def story():
        async with server(tmp_path, preload=True, python=str(short)) as host:
            detail = (await host.event("fork_unavailable")).detail
            assert "died 3 times while loading" in detail
            assert [event.kind for event in host.events] == ["zygote_lost", "zygote_lost", "fork_unavailable"]

    asyncio.run(story())
