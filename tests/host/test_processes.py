"""Guard and keepers with a stand-in engine: how an engine starts and ends, and that nothing of it stays."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.host.proc_helpers import Server, leftovers, server, soon
from vllama.errors import LaunchError
from vllama.host import proctree
from vllama.host.processes import Order
from vllama.host.runfolder import remove_stale


def gone(pids: tuple[int, ...]) -> bool:
    return all(proctree.look(pid) is None for pid in pids)


def engine_leftovers(host: Server) -> list[str]:
    return leftovers(f"{host.mark}.") + [str(p) for p in Path(host.processes._folder.path).glob("[0-9]*")]


def test_an_engine_runs_with_its_arguments_and_names_and_a_stop_leaves_nothing(tmp_path):
    async def story():
        async with server(tmp_path) as host:
            pid = await host.launch("a", argv=("--port", "1"), env={"STAND_IN": "yes"})
            assert (tmp_path / "a.log").read_text() == "up --port 1 yes\n"
            pids = await host.processes.tree("a")
            assert pid in pids
            assert engine_leftovers(host) != []
            host.processes.kill("a", 10)
            host.processes.kill("a", 10)
            event = await host.event("exited", "a")
            assert (event.code, event.why) == (0, "")
            assert gone(pids[1:])  # its tree is gone when it is said to be; the keeper that said so goes next
            await soon(lambda: gone(pids[:1]), 5)
            assert engine_leftovers(host) == []
            assert await host.processes.tree("a") == ()
            host.processes.kill("a", 10)

    asyncio.run(story())


def test_a_kill_without_grace_and_one_whose_grace_is_over_end_the_tree(tmp_path):
    async def story():
        async with server(tmp_path) as host:
            await host.launch("now")
            deaf = await host.launch("deaf")
            os.kill(deaf, signal.SIGSTOP)  # it will not handle SIGTERM
            host.processes.kill("now", 0)
            host.processes.kill("deaf", 0.1)
            assert (await host.event("exited", "now")).code == -signal.SIGKILL
            assert (await host.event("exited", "deaf")).code == -signal.SIGKILL
            assert engine_leftovers(host) == []

    asyncio.run(story())


def test_each_tree_is_its_own_engines_and_who_is_gone_has_none(tmp_path):
    async def story():
        async with server(tmp_path) as host:
            names = ["a", "b", "c"]
            pids = {name: await host.launch(name) for name in names}
            host.processes.kill("c", 0)
            await host.event("exited", "c")
            trees = await host.processes.trees([*names, "nobody"])
            assert [len(trees[name]) for name in [*names, "nobody"]] == [4, 4, 0, 0]
            assert len({*trees["a"], *trees["b"]}) == 8
            assert pids["a"] in trees["a"]
            assert pids["b"] in trees["b"]

    asyncio.run(story())


def test_an_api_server_that_is_killed_takes_its_tree_along(tmp_path):
    async def story():
        async with server(tmp_path) as host:
            other = await host.launch("other")
            pid = await host.launch("a")
            pids = await host.processes.tree("a")
            os.kill(pid, signal.SIGKILL)
            event = await host.event("exited", "a")
            assert (event.code, event.why) == (-signal.SIGKILL, "")
            assert gone(pids[1:])  # its tree is gone when it is said to be; the keeper that said so goes next
            await soon(lambda: gone(pids[:1]), 5)
            assert proctree.alive(other, proctree.start_time(other))
            assert leftovers(f"{host.mark}.2") == []

    asyncio.run(story())


def test_a_keeper_that_is_killed_leaves_its_tree_to_the_guard(tmp_path):
    async def story():
        async with server(tmp_path) as host:
            other = await host.launch("other")
            await host.launch("a")
            pids = await host.processes.tree("a")
            os.kill(pids[0], signal.SIGKILL)
            event = await host.event("exited", "a")
            assert (event.code, event.why) == (-signal.SIGKILL, "lost")
            assert gone(pids[1:])  # its tree is gone when it is said to be; the keeper that said so goes next
            await soon(lambda: gone(pids[:1]), 5)
            assert proctree.alive(other, proctree.start_time(other))
            assert leftovers(f"{host.mark}.2") == []

    asyncio.run(story())


@pytest.mark.parametrize("keepers_too", [False, True])
def test_without_its_guard_no_engine_lives_and_the_next_launch_has_a_new_one(tmp_path, keepers_too):
    async def story():
        async with server(tmp_path) as host:
            guard = host.processes.helper_pids()[0]
            await host.launch("a")
            await host.launch("b")
            pids = await host.processes.tree("a") + await host.processes.tree("b")
            victims = [guard, (await host.processes.tree("a"))[0]] if keepers_too else [guard]
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            await host.event("guard_lost")
            assert (await host.event("exited", "a")).why == "lost"
            assert (await host.event("exited", "b")).why == "lost"
            await soon(lambda: gone((guard, *pids)), 5)
            assert engine_leftovers(host) == []
            await host.launch("c")
            assert host.processes.helper_pids()[0] != guard

    asyncio.run(story())


def test_closing_ends_engines_that_still_run(tmp_path):
    async def story():
        async with server(tmp_path) as host:
            await host.launch("a")
            await host.launch("b")
            pids = await host.processes.tree("a") + host.processes.helper_pids()
        assert gone(pids)
        assert host.events == []
        with pytest.raises(LaunchError, match="closed"):
            await host.processes.launch(Order("c", (), tmp_path / "c.log"))

    asyncio.run(story())


def test_a_launch_that_cannot_be_made_says_why_and_leaves_nothing(tmp_path):
    async def story():
        async with server(tmp_path) as host:
            with pytest.raises(LaunchError, match="interpreter /nowhere/python"):
                await host.launch("a", python="/nowhere/python")
            with pytest.raises(LaunchError, match=r"log .* cannot be written"):
                await host.launch("a", log=tmp_path / "no" / "such.log")
            with pytest.raises(LaunchError, match="cannot be done: another script"):
                await host.launch("a", mode="fork")
            assert engine_leftovers(host) == []
            await host.launch("a")
            with pytest.raises(LaunchError, match="exists already"):
                await host.launch("a")

    asyncio.run(story())


def test_an_interpreter_that_cannot_preload_is_reported_and_engines_start_plainly(tmp_path):
    bare = tmp_path / "python"  # sees no installed package, so no vLLM
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(0o755)

    async def story():
        async with server(tmp_path, preload=True, python=str(bare)) as host:
            detail = (await host.event("fork_unavailable")).detail
            assert "vLLM cannot be imported" in detail
            assert (host.processes.zygote_state, host.processes.zygote_reason) == ("broken", detail)
            started = await host.processes.launch(Order("a", ("--port", "1"), tmp_path / "a.log"))
            assert (started.mode, started.reason) == ("exec", detail)
            assert (await host.event("exited", "a")).code == 1  # the bootstrap found no vLLM either
            assert "ModuleNotFoundError" in (tmp_path / "a.log").read_text()

    asyncio.run(story())


def test_a_launch_says_how_long_the_preload_kept_it_waiting(tmp_path):
    gate = tmp_path / "gate"  # the zygote waits here until the test lets it fail
    os.mkfifo(gate)
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\n[ -p {gate} ] && read line < {gate}\nexec {sys.executable} -S -E "$@"\n')
    slow.chmod(0o755)

    async def story():
        async with server(tmp_path, preload=True, python=str(slow)) as host, asyncio.TaskGroup() as group:
            assert host.processes.zygote_state == "loading"
            launch = group.create_task(host.processes.launch(Order("a", ("--port", "1"), tmp_path / "a.log")))
            await asyncio.sleep(0)
            begun = time.monotonic()  # it waits by now

            def let() -> float:
                with gate.open("w") as opened:  # once the other end is open, too
                    held_s = time.monotonic() - begun
                    gate.unlink()
                    opened.write("go\n")
                return held_s

            held_s = await asyncio.to_thread(let)
            started = await launch
            assert started.mode == "exec"
            assert started.waited_s >= held_s > 0
            again = await host.processes.launch(Order("b", ("--port", "1"), tmp_path / "b.log"))
            assert (again.mode, again.waited_s) == ("exec", 0.0)

    asyncio.run(story())


def plant_dead_server(host: Server) -> tuple[str, list[Path]]:
    """What a killed server leaves, under a mark that is surely dead: our pid, at another time."""
    dead = f"{host.mark.rpartition('-')[0]}-1"
    folder, shm = Path(host.processes._folder.path).with_name(dead), Path("/dev/shm", f"{dead}.7.x")
    folder.mkdir()
    shm.touch()
    return dead, [folder, shm]


def test_what_a_dead_server_left_is_removed_and_what_a_living_one_uses_is_not(tmp_path):
    async def story():
        async with server(tmp_path) as host:
            await host.launch("a")
            dead, planted = plant_dead_server(host)
            assert dead in remove_stale()
            assert not any(path.exists() for path in planted)
            assert len(engine_leftovers(host)) == 2

    asyncio.run(story())
