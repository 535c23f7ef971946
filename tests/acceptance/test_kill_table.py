"""Who is killed, and in which phase of a model: each cell leaves no process, no memory and no file that nobody owns, and where
vllama lives on it serves the next request. Each phase is held open by the fake engine until the test has struck."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Proc, Vllama, descendants, stat_of, wait_until

from tests.acceptance.gpu_rig import A, GpuRig, rigs
from tests.api.rig import chat_body
from tests.fakes.fake_gpu import GIB

BOUND_S = 60
GONE_S = 5  # after `kill -9` of vllama at any moment
PHASES = ("starting", "awake", "draining", "falling_asleep", "asleep", "waking", "stopping")
# What the engine does there is held open for ever: the first signal would wait for it, the second one hurries.
HELD = ("falling_asleep", "waking", "stopping")
CORES = "children=2"  # what lives on below a killed API server, as vLLM's EngineCore and workers do
CORE_BYTES = 2**26


@pytest.fixture
def rig(vllama_server: Callable[..., Vllama], tmp_path: Path, gpu_driver: Path) -> Iterator[GpuRig]:
    for make in rigs(vllama_server, tmp_path, gpu_driver):
        yield make(16 * GIB, VLLAMA_SHUTDOWN_TIMEOUT_S="0.2", VLLAMA_STOP_GRACE_S="60")


class Cell:
    """One model in one phase, its processes, and whoever waits for it."""

    def __init__(self, rig: GpuRig, phase: str) -> None:
        self.rig = rig
        self._callers: list[threading.Thread] = []
        self._socket: Any = None
        self.rig.faults(CORES)
        if phase != "starting":
            rig.ok(A)
        if phase in ("asleep", "waking"):
            rig.asleep(A)
        getattr(self, f"_{phase}")()
        assert wait_until(lambda: len(self.cores()) == 2, BOUND_S)
        for core in self.cores():
            rig.gpus.hold_by(core.pid, CORE_BYTES)
        rig.until(A, phase=phase)
        self.engine: int = rig.view(A)["pid"]
        self.guard = self._guard()
        self.marks = Path(f"/proc/{self.guard}/cmdline").read_bytes().decode().split("\0")[-3:-1]
        assert Path(self.marks[0]).exists()
        self.tree = rig.server.look()

    def _starting(self) -> None:
        self._fault("hang_loading")
        self._call(lambda: self.rig.chat(A))
        assert wait_until(lambda: bool(self.rig.view(A).get("pid")), BOUND_S)

    def _awake(self) -> None:
        pass

    def _asleep(self) -> None:
        pass

    def _draining(self) -> None:
        self._socket = self.rig.hanging(chat_body(A, "g", stream=True))
        self.rig.waits_at(A, "g")
        self._call(lambda: self.rig.command("sleep", A, level=2))

    def _falling_asleep(self) -> None:
        self._fault("hold_sleep")
        self._call(lambda: self.rig.command("sleep", A, level=2))

    def _waking(self) -> None:
        self._fault("hang_wake")
        self._call(lambda: self.rig.chat(A))

    def _stopping(self) -> None:
        self._fault("ignore_term")
        self._call(lambda: self.rig.command("stop", A))

    def cores(self) -> set[Proc]:
        return descendants(self.rig.view(A)["pid"])

    def _fault(self, name: str) -> None:
        self.rig.faults(CORES, name)

    def _call(self, ask: Callable[[], object]) -> None:
        """Ask in the background; how it ends is another test's matter."""

        def run() -> None:
            with contextlib.suppress(httpx.HTTPError):
                ask()

        self._callers.append(threading.Thread(target=run))
        self._callers[-1].start()

    def _guard(self) -> int:
        (guard,) = [
            proc.pid
            for proc in descendants(self.rig.server.pid)
            if (stat := stat_of(proc.pid)) and stat.name == "vllama-guard"
        ]
        return guard

    def over(self) -> None:
        """Nobody waits any more."""
        if self._socket is not None:
            self._socket.close()
        for caller in self._callers:
            caller.join(BOUND_S)
            assert not caller.is_alive()

    def nothing_is_left(self, within_s: float = BOUND_S) -> None:
        """Of the engine and what it held: no process, no GPU memory."""

        def alive() -> list[Proc]:
            own = {self.rig.server.process.pid} if self.rig.server.process else set()
            return [
                proc
                for proc in self.tree
                if proc.pid not in own and (stat := stat_of(proc.pid)) and stat.proc == proc and stat.state != "Z"
            ]  # fmt: skip

        assert wait_until(lambda: not alive(), within_s), alive()
        pids = (self.rig.gpus.folder / "gpu0" / "pids").iterdir()
        assert [path.name for path in pids if path.name.isdecimal() and _lives(int(path.name))] == []

    def no_file_is_left(self) -> None:
        folder, mark = self.marks
        assert wait_until(lambda: not Path(folder).exists(), BOUND_S)
        assert [path.name for path in Path("/dev/shm").iterdir() if mark in path.name] == []


def _lives(pid: int) -> bool:
    stat = stat_of(pid)
    return stat is not None and stat.state not in "ZX"


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_ends_vllama_and_all_below_it(rig: GpuRig, number: signal.Signals, phase: str) -> None:
    cell = Cell(rig, phase)
    process = rig.server.process
    assert process is not None
    process.send_signal(number)
    if phase in HELD:
        assert wait_until(lambda: f"{number.name}: finishing" in rig.server.log.read_text(), BOUND_S)
        process.send_signal(number)
    assert process.wait(BOUND_S) == 0
    cell.over()
    cell.nothing_is_left()
    cell.no_file_is_left()


@pytest.mark.parametrize("phase", PHASES)
def test_kill_9_of_vllama_takes_everything_along(rig: GpuRig, phase: str) -> None:
    cell = Cell(rig, phase)
    process = rig.server.process
    assert process is not None
    process.kill()
    assert process.wait(BOUND_S) == -signal.SIGKILL
    cell.nothing_is_left(GONE_S)
    cell.over()
    cell.no_file_is_left()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("who", ["guard", "API server"])
def test_vllama_outlives_them_and_serves_the_next_request(rig: GpuRig, who: str, phase: str) -> None:
    cell = Cell(rig, phase)
    os.kill(cell.guard if who == "guard" else cell.engine, signal.SIGKILL)
    rig.soon(lambda: bool(rig.events("EngineGone", A)))
    rig.faults()
    cell.over()
    rig.until(A, in_flight=0, waiting=0)
    rig.ok(A)
    assert rig.view(A)["pid"] not in (0, cell.engine)
    assert rig.command("stop", A).json()["phase"] == "stopped"
    rig.soon(lambda: rig.devices()[0]["booked_bytes"] == 0)
    cell.tree = {proc for proc in cell.tree if proc.pid != cell.guard}
    cell.nothing_is_left()
