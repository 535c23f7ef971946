"""Real engines forked from the zygote: they answer soon, outlive the zygote, and heed only an announced SIGTERM."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.engine.engine_helpers import begin, engine_argv, free_port, snapshot, start, up
from tests.host.proc_helpers import GONE_S, below, eventually, leftovers, server, soon
from tests.host.test_processes_killed import groups_and_sessions, none_of, stand_in  # noqa: F401  a fixture
from vllama.host import proctree
from vllama.host.forkable import READ_LATE


def test_a_forked_engine_outlives_its_zygote_and_a_stop_ends_it_with_0(tiny_cache, tmp_path):
    path = snapshot(tiny_cache, "tiny/qwen3")

    async def story():
        async with server(tmp_path, preload=True) as host:
            engine = await start(host.processes, tmp_path, path)
            assert (engine.started.mode, engine.started.reason) == ("fork", "")
            before = await engine.chat("the cat")
            assert (await host.event("zygote_ready")).detail
            await engine.call("POST", "/sleep?level=2")
            coming = await begin(host.processes, tmp_path, path, launch_id="coming")
            assert "startup complete" not in coming.log.read_text()
            # The zygote dies: one engine is asleep, another is on its way up.
            _, zygote = host.processes.helper_pids()
            os.kill(zygote, signal.SIGKILL)
            await host.event("zygote_lost")
            await engine.wake_from_2()
            assert await engine.chat("the cat") == before
            assert await (await up(coming)).chat("the cat") == before
            host.processes.kill("coming", 30)
            assert (await host.event("exited", "coming")).code == 0
            # The next one is forked from a new zygote, while the old one's engine serves on.
            second = await start(host.processes, tmp_path, path, launch_id="second")
            assert second.started.mode == "fork"
            assert proctree.look(zygote) is None
            assert await second.chat("the cat") == before
            assert await engine.chat("the cat") == before
            pids = await host.processes.tree("e")
            host.processes.kill("e", 30)
            event = await host.event("exited", "e")
            assert (event.code, event.why) == (0, ""), engine.log.read_text()[-2000:]
            await soon(lambda: none_of(list(pids)), GONE_S)
            assert leftovers(f"{host.mark}.1") == []
            # Everything that is killed hard is cleaned as well: the API server, then the keeper of a real engine.
            os.kill(second.started.pid, signal.SIGKILL)
            assert (await host.event("exited", "second")).code == -signal.SIGKILL
            third = await start(host.processes, tmp_path, path, launch_id="third")
            pids = await host.processes.tree("third")
            os.kill(pids[0], signal.SIGKILL)
            assert (await host.event("exited", "third")).why == "lost"
            await soon(lambda: none_of(list(pids)), GONE_S)
            assert leftovers(f"{host.mark}.") == []
            assert third.started.mode == "fork"

    asyncio.run(story())


def test_a_signal_to_the_whole_group_cuts_no_stream_and_then_vllamas_death_leaves_nothing(
    stand_in,  # noqa: F811
    tiny_cache,
    tmp_path,
):
    port = free_port()
    argv = engine_argv(snapshot(tiny_cache, "tiny/qwen3"), port)
    vllama = stand_in({"launch_id": "e", "argv": argv}, preload=True)
    launched = next(said for _ in range(10) if "launched" in (said := vllama.read()))
    assert launched["mode"] == "fork", launched
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return urllib.request.urlopen(f"{url}/health", timeout=1).status == 200
        except OSError:
            return False

    eventually(answers, 120)
    tree = [proc.pid for proc in below(vllama.process.pid)]
    assert groups_and_sessions(tree) == {(vllama.process.pid, os.getsid(0))}
    body = {
        "model": "m",
        "prompt": "the cat",
        "max_tokens": 200,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as stream:
        lines = [stream.readline()]
        for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.killpg(vllama.process.pid, signum)
        lines += stream.readlines()
    # Counted by the engine, which puts several tokens into one event when its reader is late.
    *_, usage = (line for line in lines if line.startswith(b"data: {"))
    assert lines[-2] == b"data: [DONE]\n"
    assert json.loads(usage[6:])["usage"]["completion_tokens"] == 200
    assert answers()
    pids = [proc.pid for proc in below(vllama.process.pid)]
    assert len(pids) >= 6  # guard, zygote, keeper, API server, EngineCore, worker
    vllama.process.kill()
    eventually(lambda: none_of(pids), GONE_S)
    assert leftovers(vllama.mark) == []


def test_what_a_fork_cannot_honour_is_started_plainly_and_says_so(tiny_cache, tmp_path):
    path = snapshot(tiny_cache, "tiny/qwen3")

    async def story():
        async with server(tmp_path, preload=True) as host:
            forked = await start(host.processes, tmp_path, path, env={"VLLM_CPU_OMP_THREADS_BIND": "nobind"})
            assert forked.started.mode == "fork"
            before = await forked.chat("the cat")
            host.processes.kill("e", 30)
            await host.event("exited", "e")
            plain = await start(host.processes, tmp_path, path, launch_id="x", env={"HF_HOME": str(tmp_path)})
            assert plain.started.mode == "exec"
            assert "HF_HOME" in plain.started.reason
            assert await plain.chat("the cat") == before
            await plain.call("POST", "/sleep?level=2")
            await plain.wake_from_2()
            assert await plain.chat("the cat") == before
            for pid in await host.processes.tree("x"):
                if not proctree.look(pid).comm.startswith(proctree.OURS):
                    os.kill(pid, signal.SIGINT)
                    os.kill(pid, signal.SIGHUP)
            assert await plain.chat("the cat") == before
            host.processes.kill("x", 30)
            event = await host.event("exited", "x")
            assert event.code == 0, plain.log.read_text()[-2000:]
            assert leftovers(f"{host.mark}.") == []

    asyncio.run(story())


def test_what_may_differ_in_a_fork_is_read_after_the_import():
    """Each variable is set only when everything is imported, and vLLM sees it."""
    code = f"""
import os
from vllama.host import zygote
zygote.preload()
import vllm.envs, huggingface_hub
for name in {sorted(READ_LATE - {"CUDA_VISIBLE_DEVICES", "HF_TOKEN"})}:
    before = getattr(vllm.envs, name)
    for value in ("7", "nobind", "1", "0"):
        os.environ[name] = value
        try:
            after = getattr(vllm.envs, name)
        except (ValueError, TypeError):
            continue
        if after != before:
            break
    else:
        raise SystemExit(f"{{name}} is not read late: {{before}}")
os.environ["HF_TOKEN"] = "hf_late"
assert huggingface_hub.get_token() == "hf_late"
"""
    root = str(Path(__file__).resolve().parents[2])
    env = os.environ | {"PYTHONPATH": root, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
