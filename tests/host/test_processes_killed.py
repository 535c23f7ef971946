"""vllama itself killed, or its whole group signalled: what runs on, and that nothing stays behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host.proc_helpers import ENGINE, GONE_S, below, eventually, leftovers
from vllama.host import proctree

STAND_IN = Path(__file__).with_name("stand_in_server.py")
ROOT = str(Path(__file__).resolve().parents[2])


class StandIn:
    """One stand-in server in a process group of its own."""

    def __init__(self, folder: Path, preload: bool, orders: list[dict[str, Any]]) -> None:
        for order in orders:
            order.setdefault("log", str(folder / f"{order['launch_id']}.log"))
        words = [str(folder), "preload" if preload else "plain", *map(json.dumps, orders)]
        self.process = subprocess.Popen(
            [sys.executable, str(STAND_IN), *words],
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
            env=os.environ | {"PYTHONPATH": ROOT},
        )
        opened = self.read()
        self.mark, self.guard = opened["mark"], opened["guard"]

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the stand-in server died"
        return json.loads(line)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def stand_in(tmp_path) -> Iterator[Any]:
    made: list[StandIn] = []

    def make(*orders: dict[str, Any], preload: bool = False) -> StandIn:
        made.append(StandIn(tmp_path, preload, list(orders)))
        return made[-1]

    yield make
    for one in made:
        one.close()
        eventually(lambda one=one: leftovers(one.mark) == [], GONE_S)


def order(launch_id: str) -> dict[str, Any]:
    return {"launch_id": launch_id, "argv": [], "entry": ENGINE}


def up(folder: Path, *names: str) -> None:
    for name in names:
        log = folder / f"{name}.log"
        eventually(lambda log=log: log.exists() and "up" in log.read_text())


def none_of(pids: list[int]) -> bool:
    return all(proctree.look(pid) is None for pid in pids)


@pytest.mark.parametrize("along", ["alone", "with its keeper", "with its guard"])
def test_nothing_outlives_a_killed_vllama(stand_in, tmp_path, along):
    server = stand_in(order("a"), order("b"))
    first, second = server.read(), server.read()
    up(tmp_path, "a", "b")
    # the guard, and twice keeper, engine, child and grandchild
    procs = eventually(lambda: (found := below(server.process.pid))[8:] and found)
    pids = [server.guard, *(proc.pid for proc in procs)]
    victims = {"with its keeper": [first["pids"][0]], "with its guard": [server.guard]}.get(along, [])
    for pid in [*victims, server.process.pid]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: none_of(pids[1:]), GONE_S)
    # Nobody may be left to clean after a vllama that died together with its guard but the keepers; the next server
    # removes the server's own (empty) folder.
    if along == "with its guard":
        assert [path for path in leftovers(server.mark) if not path.endswith(server.mark)] == []
        stand_in()
    eventually(lambda: leftovers(server.mark) == [], GONE_S)
    assert second["mode"] == "exec"


def test_nothing_outlives_a_vllama_that_is_killed_during_the_preload(stand_in):
    server = stand_in(preload=True)
    pids = eventually(lambda: (found := [p.pid for p in below(server.process.pid)])[1:] and found)
    server.process.kill()
    eventually(lambda: none_of(pids), GONE_S)


def groups_and_sessions(pids: list[int]) -> set[tuple[int, int]]:
    return {(os.getpgid(pid), os.getsid(pid)) for pid in pids}


def test_a_terminal_signal_to_the_group_reaches_no_helper_and_no_engine(stand_in, tmp_path):
    server = stand_in(order("a"))
    server.read()
    up(tmp_path, "a")
    before = {proc.pid for proc in below(server.process.pid)}
    # They are all of vllama's own group: none has one, or a session, of its own.
    assert groups_and_sessions([*before]) == {(server.process.pid, os.getsid(0))}
    for signum in (signal.SIGINT, signal.SIGHUP):
        os.killpg(server.process.pid, signum)
    os.kill(server.guard, signal.SIGTERM)
    # A signal that would kill has done so before a later one is answered: stop and continue the guard.
    os.kill(server.guard, signal.SIGSTOP)
    eventually(lambda: proctree.look(server.guard).state == "T")
    os.kill(server.guard, signal.SIGCONT)
    eventually(lambda: proctree.look(server.guard).state != "T")
    helpers = [proc for proc in below(server.process.pid) if proc.comm.startswith(proctree.OURS)]
    assert len(helpers) == 2
    assert {proc.pid for proc in below(server.process.pid)} == before
