"""LocalHost over real processes and real sockets; the engines are fake_vllm."""

import asyncio
import http.server
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from tests.api.caches import CHAT, EMBED
from tests.host.local_helpers import BOUND_S, Bench, with_bench
from tests.host.proc_helpers import soon
from vllama.errors import HostUnavailable, LaunchError
from vllama.host.host import ReadyState
from vllama.host.logs import read_span, size_of
from vllama.host.ports import listener_inodes


def test_an_engine_starts_serves_and_ends(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        proc, engine = await bench.awake()
        assert proc.model == CHAT
        assert proc.mode == "exec"
        assert 33300 <= proc.port <= 34300
        assert proc.log == str(tmp_path / "config" / "logs" / f"tiny--chat_{proc.port}.log")
        assert engine.reference is not None
        assert await bench.host.procs() == (proc,)
        assert b"Application startup complete" in await bench.host.logs(proc.launch_id, 0, 10_000)
        await bench.host.kill(proc.launch_id, 5)
        end = await bench.exited(proc.launch_id)
        assert (end.code, end.why) == (0, "")
        assert await bench.host.procs() == ()
        assert await bench.host.wait_ready(proc.launch_id, BOUND_S) == ReadyState("exited")
        with pytest.raises(HostUnavailable):
            await bench.host.control(proc.launch_id, "GET", "/health", b"", 1)
        await bench.host.kill(proc.launch_id, 5)  # again: nothing happens
        assert not listener_inodes(proc.port)

    with_bench(tmp_path, story)


def test_the_same_launch_twice_is_one_engine(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        spec = await bench.spec()
        first, second = await asyncio.gather(bench.host.launch(spec), bench.host.launch(spec))
        assert first == second
        assert len(await bench.host.procs()) == 1

    with_bench(tmp_path, story)


def test_two_launches_at_once_get_two_ports_and_logs(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        (one, _), (two, _) = await asyncio.gather(bench.awake(CHAT), bench.awake(EMBED))
        assert one.port != two.port
        assert one.log != two.log

    with_bench(tmp_path, story)


def test_a_model_keeps_its_port_while_it_is_free(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        one, _ = await bench.awake()
        with socket.socket() as squatter:
            squatter.bind(("127.0.0.1", 0))  # takes some other port; the model's stays free
            await bench.host.kill(one.launch_id, 0)
            await bench.exited(one.launch_id)
            two, _ = await bench.awake()
            assert two.port == one.port
        await bench.host.kill(two.launch_id, 0)
        await bench.exited(two.launch_id)
        with socket.socket() as squatter:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            squatter.bind(("127.0.0.1", one.port))
            squatter.listen()
            three, _ = await bench.awake()
            assert three.port != one.port

    with_bench(tmp_path, story)


def test_no_free_port_is_a_launch_error(tmp_path: Path) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]

        async def story(bench: Bench) -> None:
            with pytest.raises(LaunchError, match="no free port"):
                await bench.launch()

        with_bench(tmp_path, story, vllm_port_start=port, vllm_port_end=port)


@pytest.mark.parametrize(
    ("fault", "why", "said"),
    [
        ("die_at_start", "", "Engine core initialization failed"),
        ("port_taken", "port", "Address already in use"),
        ("profiling_error", "profiling", "Error in memory profiling"),
        ("oom_at_start", "oom", "out of memory"),
    ],
)
def test_why_a_start_failed(tmp_path: Path, fault: str, why: str, said: str) -> None:
    async def story(bench: Bench) -> None:
        bench.faults.write_text(f"once:{fault}")
        proc, _ = await bench.launch()
        assert await bench.host.wait_ready(proc.launch_id, BOUND_S) == ReadyState("exited")
        end = await bench.exited(proc.launch_id)
        assert (end.code, end.why) == (1, why)
        assert said in end.log_tail
        # The next run writes to the same log, and what this one said is not its.
        again, _ = await bench.awake()
        assert again.log == proc.log
        os.kill(again.pid, signal.SIGKILL)
        end = await bench.exited(again.launch_id)
        assert (end.code, end.why) == (-signal.SIGKILL, "")
        assert said not in end.log_tail
        assert "startup complete" in end.log_tail

    with_bench(tmp_path, story)


def test_an_engine_that_has_failed_and_hangs_is_ended(tmp_path: Path) -> None:
    """Real vLLM: its EngineCore waits for its worker for ever, and the API server for its EngineCore."""

    async def story(bench: Bench) -> None:
        bench.faults.write_text("once:core_fails")
        proc, _ = await bench.launch()
        assert await bench.host.wait_ready(proc.launch_id, BOUND_S) == ReadyState("exited")
        end = await bench.exited(proc.launch_id)
        assert (end.code, end.why) == (-signal.SIGKILL, "core")
        assert "a bad head size" in end.log_tail

    with_bench(tmp_path, story)


def test_another_server_on_the_port_is_not_our_engine_and_ends_the_start(tmp_path: Path) -> None:
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    async def story(bench: Bench) -> None:
        bench.faults.write_text("hang_at_start")
        proc, _ = await bench.launch()
        server = http.server.HTTPServer(("127.0.0.1", proc.port), Health)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert (await bench.host.control(proc.launch_id, "GET", "/health", b"", 5)).status == 200
            assert await bench.host.wait_ready(proc.launch_id, BOUND_S) == ReadyState("exited")
            assert (await bench.exited(proc.launch_id)).why == "port"
            bench.faults.write_text("")
            again, _ = await bench.awake()
            assert again.port != proc.port
        finally:
            await asyncio.to_thread(server.shutdown)
            thread.join()
            server.server_close()

    with_bench(tmp_path, story)


def test_a_killed_start_is_no_failure_with_a_reason(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.faults.write_text("hang_at_start")
        proc, engine = await bench.launch()
        waiting = asyncio.ensure_future(bench.host.wait_ready(proc.launch_id, BOUND_S))
        await bench.host.kill(proc.launch_id, 0)
        assert await waiting == ReadyState("exited")
        assert (await bench.exited(proc.launch_id)).code == -signal.SIGKILL
        assert engine.reference is None

    with_bench(tmp_path, story)


def test_an_engine_deaf_to_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.faults.write_text("ignore_term\nchildren=2")
        proc, _ = await bench.awake()
        await bench.host.kill(proc.launch_id, 0.1)
        assert (await bench.exited(proc.launch_id)).code == -signal.SIGKILL

    with_bench(tmp_path, story)


def test_memory_is_measured_and_comes_back_with_sleep(tmp_path: Path) -> None:
    size = 64 * 2**20

    async def story(bench: Bench) -> None:
        empty = (await bench.host.sample()).devices[0]
        assert empty.free_bytes <= empty.total_bytes == 2**30
        proc, engine = await bench.awake(FAKE_VLLM_WEIGHTS_BYTES=str(size))
        full = (await bench.host.sample()).devices[0]
        awake = full.used_by[proc.launch_id]
        assert awake >= size
        assert full.free_bytes <= 2**30 - awake
        assert full.shared_bytes > 0  # the guard
        for level, freed in ((2, size), (1, 0), (2, size)):
            await engine.sleep(level, BOUND_S)
            asleep = await bench.used(proc.launch_id)
            assert awake - asleep >= 0.8 * freed
            await engine.wake(level, BOUND_S)
            assert await bench.used(proc.launch_id) >= 0.95 * awake
        await bench.host.kill(proc.launch_id, 0)
        await bench.exited(proc.launch_id)
        assert (await bench.host.sample()).devices[0].used_by == {}

    with_bench(tmp_path, story, memory_limit=2**30)


def test_a_long_log_is_cut_under_a_living_engine(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        first, _ = await bench.awake()
        await bench.host.kill(first.launch_id, 0)
        await bench.exited(first.launch_id)
        proc, _ = await bench.awake()
        assert proc.log == first.log
        # An engine writes its line after its answer: the warm-up's must be there before the two are compared.
        await soon(
            lambda: read_span(Path(proc.log), 0, 10_000).count(b'"POST /v1/completions HTTP/1.1" 200\n') == 2
        )
        before = read_span(Path(proc.log), 0, 10_000)
        assert before.endswith(await bench.host.logs(proc.launch_id, 0, 10_000))
        bench.host._check_logs()
        assert bench.host._logs_check is not None
        await bench.host._logs_check
        assert size_of(Path(proc.log)) == 0
        assert read_span(Path(proc.log + ".1"), 0, 10_000) == before != b""
        await bench.fetch(proc, "GET", "/v1/models")
        await soon(lambda: size_of(Path(proc.log)))
        assert (await bench.host.logs(proc.launch_id, 0, 1000)).startswith(
            b'INFO:     127.0.0.1:1 - "GET /v1/models HTTP/1.1" 200'
        )

    with_bench(tmp_path, story, log_max_bytes=800)


def test_describe_says_why_nothing_is_forked(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        info = await bench.host.describe()
        assert info.start_mode_reason == "engine_entry is set"
        assert info.zygote == "off"
        assert [device.id for device in info.devices] == ["cpu"]
        assert info.versions["python"]

    with_bench(tmp_path, story)


def test_closing_leaves_nothing_and_answers_who_waits(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.faults.write_text("hang_at_start")
        proc, _ = await bench.launch()
        async with asyncio.TaskGroup() as tasks:
            ready = tasks.create_task(bench.host.wait_ready(proc.launch_id, BOUND_S))
            events = tasks.create_task(bench.host.events(0, BOUND_S))
            await asyncio.sleep(0)
            await bench.host.close()
        assert ready.result() == ReadyState("exited")
        assert events.result() == ()
        with pytest.raises(ProcessLookupError):
            os.kill(proc.pid, 0)

    with_bench(tmp_path, story)
