"""RAM in private bytes, ports and log files: what the hands measure and touch."""

import mmap
import os
import signal
import socket
from pathlib import Path

import pytest

from vllama.host import devices
from vllama.host.devices import RamDevice, anonymous_bytes_of, private_bytes_of
from vllama.host.diagnosis import why_exited
from vllama.host.logs import log_path, tail, truncate_if_long
from vllama.host.ports import listened_on, listener_inodes, owned_by, reserve

SIZE = 32 * 2**20


def test_private_bytes_are_what_a_process_took_and_not_what_it_shares() -> None:
    before = private_bytes_of([os.getpid()])
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    with mmap.mmap(-1, SIZE, flags=flags):
        taken = private_bytes_of([os.getpid()]) - before
        assert 0.9 * SIZE < taken < 1.5 * SIZE
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.read(read, 1)
            os._exit(0)
        try:
            assert private_bytes_of([child]) < SIZE / 2  # all of it is shared with us
            assert private_bytes_of([os.getpid()]) - before < SIZE / 2  # and so no longer ours alone
            assert anonymous_bytes_of([os.getpid()]) > 0.9 * SIZE  # but ours still
        finally:
            os.write(write, b"x")
            os.waitpid(child, 0)
            os.close(read)
            os.close(write)


def test_a_process_that_is_gone_counts_nothing() -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert private_bytes_of([child]) == 0  # a zombie
    os.waitpid(child, 0)
    assert private_bytes_of([child]) == 0


def test_what_is_free_is_what_the_limit_and_the_machine_leave() -> None:
    own = private_bytes_of([os.getpid()])
    device = RamDevice(own * 4)
    sample = device.sample({"a": [os.getpid()]}, [os.getpid()])
    assert sample.total_bytes == own * 4 == device.info.total_bytes
    assert sample.used_by["a"] > 0
    assert sample.shared_bytes > 0
    assert sample.free_bytes == sample.total_bytes - sample.used_by["a"] - sample.shared_bytes
    assert RamDevice(1).sample({"a": [os.getpid()]}, []).free_bytes == 0


def test_without_a_limit_the_machine_keeps_a_reserve() -> None:
    device = RamDevice(None)
    assert 0 < device.info.total_bytes <= devices.ram_total_bytes()
    assert RamDevice(2**60).info.total_bytes == device.info.total_bytes


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    assert devices.cgroup_limit_bytes() is None
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.cgroup_limit_bytes() is None
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**29}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {2**20}\n")
    assert RamDevice(None).info.total_bytes == 2**29
    assert devices.ram_total_bytes() == 2**30
    assert devices.ram_available_bytes() == min(2**29 + 2**20, devices._meminfo("MemAvailable:"))


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server_on(port: int) -> socket.socket:
    """Bound as every server binds, not listening yet."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", port))
    return server


def test_a_reserved_port_is_the_engines_and_no_other_vllamas(port: int) -> None:
    reserved = reserve(port, port)
    assert reserved is not None
    assert reserved.port == port
    assert reserve(port, port) is None
    with server_on(port) as engine:
        engine.listen()
    # Neither do closed connections open it to another.
    leave_time_wait(port)
    assert reserve(port, port) is None
    reserved.close()
    again = reserve(port, port)
    assert again is not None
    again.close()


def test_a_port_where_anybody_listens_is_not_free_and_the_listener_is_found(port: int) -> None:
    with server_on(port) as server:
        assert not listener_inodes(port)
        assert not listened_on(port)
        server.listen()
        assert listened_on(port)
        assert reserve(port, port) is None
        inodes = listener_inodes(port)
        assert len(inodes) == 1
        assert owned_by(inodes, [2**22, os.getpid()])
        assert not owned_by(inodes, [os.getppid()])


def leave_time_wait(port: int) -> None:
    with server_on(port) as server:
        server.listen()
        with socket.create_connection(("127.0.0.1", port)) as client:
            served, _ = server.accept()
            served.close()  # first: its side stays in TIME_WAIT
            assert client.recv(1) == b""


def test_what_is_left_of_closed_connections_is_no_hindrance(port: int) -> None:
    leave_time_wait(port)
    with pytest.raises(OSError, match="in use"), socket.socket() as alone:
        alone.bind(("127.0.0.1", port))
    reserved = reserve(port, port, wanted=port)
    assert reserved is not None
    with server_on(port) as engine:
        engine.listen()
    reserved.close()


def test_a_wish_outside_the_range_is_no_wish(port: int) -> None:
    reserved = reserve(port, port, wanted=1)
    assert reserved is not None
    assert reserved.port == port
    reserved.close()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("org/name", "org--name_1.log"),
        ("../../etc/passwd", "_.--..--etc--passwd_1.log"),
        (".hidden", "_hidden_1.log"),
        ("a b\0c\n", "a_b_c__1.log"),
        ("x" * 300, "x" * 180 + "_1.log"),
    ],
)
def test_a_log_stays_in_its_folder_whatever_the_models_name(tmp_path: Path, model: str, name: str) -> None:
    path = log_path(tmp_path, model, 1)
    assert path.name == name
    assert path.parent == tmp_path


def test_a_tail_is_whole_lines_of_this_run(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path, 0) == ""
    path.write_text("earlier run\n" + "".join(f"line {n}\n" for n in range(1000)))
    assert tail(path, 0).splitlines() == [f"line {n}" for n in range(980, 1000)]
    assert tail(path, 12, bytes_max=20).splitlines() == ["line 998", "line 999"]
    assert len(tail(path, 0, lines_max=10**6)) <= 4096
    path.write_bytes(b"earlier run\nthis \xff run\n")
    assert tail(path, 12) == "this \N{REPLACEMENT CHARACTER} run"


def test_a_tail_has_no_lines_of_single_requests(tmp_path: Path) -> None:
    path = tmp_path / "log"
    asked = [
        'INFO:     127.0.0.1:34952 - "GET /health HTTP/1.1" 200 OK',
        '(APIServer pid=7) INFO:     10.0.0.1:1 - "POST /v1/chat/completions?a=%20 HTTP/1.1" 400 Bad Request',
        'INFO:     127.0.0.1:2 - "WebSocket /v1/realtime" [accepted]',
    ]
    told = [
        "(APIServer pid=7) INFO:     Application startup complete.",
        'ValueError: "GET /health HTTP/1.1" 200 OK',
        "INFO 11-26 10:00:00 [loggers.py:1] Engine 000: running 1 - 2",
    ]
    lines = [line for each in told for line in (*asked * 30, each, *asked * 10)]
    path.write_text("\n".join(lines) + "\n")
    assert tail(path, 0).splitlines() == told
    path.write_text("\n".join(asked * 5000) + "\n")
    assert tail(path, 0) == ""


def test_a_long_log_is_copied_and_cut_under_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        assert not truncate_if_long(path, 100)
        assert truncate_if_long(path, 99)
        writer.write(b"new")
    assert path.read_bytes() == b"new"
    assert (tmp_path / "log.1").read_bytes() == b"x" * 100
    assert not truncate_if_long(tmp_path / "absent", 0)


@pytest.mark.parametrize(
    ("log", "was_ready", "why"),
    [
        ("OSError: [Errno 98] Address already in use", False, "port"),
        ("AssertionError: Error in memory profiling. Initial free", False, "profiling"),
        ("torch.OutOfMemoryError: CUDA out of memory.", False, "oom"),
        ("ValueError: Available memory on node 0 is less than requested memory for kv (2 GiB)", False, "oom"),
        ("INFO if you run out of memory, lower --gpu-memory-utilization", False, ""),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory", True, "oom"),
        ("Address already in use", True, ""),
        ("Error in memory profiling", True, ""),
        ("Traceback: KeyError", False, ""),
    ],
)  # fmt: skip
def test_why_an_engine_ended(log: str, was_ready: bool, why: str) -> None:
    assert why_exited(log, was_ready=was_ready) == why
