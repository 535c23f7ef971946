"""Worker processes over real sockets: tickets in batches, their laws, and everybody's death."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import httpx
import pytest
from serving import Vllama, wait_until

from tests.acceptance.test_main_job import assert_fold_is_live
from tests.api.caches import CHAT, EMBED
from tests.api.rig import BOUND_S, chat_body, error_of
from tests.api.worker_rig import COUNT, ENV, WorkerRig, fresh_client, kill, make_worker_rigs
from tests.conftest import FAKE_ENGINE


@pytest.fixture
def make(make_rig):
    return make_worker_rigs(make_rig)


@pytest.fixture
def rig(make) -> WorkerRig:
    return make()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory, fake_cache) -> Iterator[Vllama]:
    """One server for all that harms nobody: two workers take their time to start."""
    env = {"VLLAMA_ENGINE_ENTRY": str(FAKE_ENGINE), "VLLAMA_ENGINE_START": "exec"} | ENV
    server = Vllama(tmp_path_factory.mktemp("shared") / "server", fake_cache, env=env)
    try:
        yield server.start()
        server.end()
    finally:
        server.kill()


@pytest.fixture
def shared(shared_server: Vllama, tmp_path) -> Iterator[WorkerRig]:
    rig = WorkerRig(shared_server, tmp_path / "faults")
    yield rig
    rig.close()


def events(rig: WorkerRig, *kinds: str) -> list[dict]:
    return [event for event in rig.server.events() if event["kind"] in kinds]


# --- tickets


def test_warm_requests_are_admitted_on_batches_and_each_is_in_the_journal(shared: WorkerRig):
    shared.warm(CHAT)
    before = len(events(shared, "AskAdmitted"))

    def ask(number: int) -> httpx.Response:
        with fresh_client(shared.server) as http:
            return http.post(
                "/v1/chat/completions", json=chat_body(CHAT), headers={"X-Request-Id": f"one-{number}"}
            )

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(40)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-vllama-state"] for answer in answers} == {"warm"}
    assert all(float(answer.headers["x-vllama-wait-ms"]) >= 0 for answer in answers)
    shared.until(CHAT, in_flight=0)
    admitted = events(shared, "AskAdmitted")[before:]
    assert {event["request"] for event in admitted} >= {f"one-{number}" for number in range(40)}
    assert len({event["ask"] for event in events(shared, "AskAdmitted")}) == len(
        events(shared, "AskAdmitted")
    )
    assert {event["cause"]["message"] for event in admitted} == {"Report"}  # nobody asked the system
    told = shared.http.get("/debug/explain", params={"request": "one-7"}).json()["explanations"]
    assert "admitted at once" in told[0]["words"]
    assert sum(worker["in_flight"] for worker in shared.workers()) == 0
    assert_fold_is_live(shared.http)


def test_batches_are_used_up_and_followed_by_others(shared: WorkerRig):
    shared.warm(CHAT)
    with (
        fresh_client(shared.server) as http,
        httpx.Client(base_url=shared.server.url, trust_env=False) as kept,
    ):
        body = chat_body(CHAT)
        for _ in range(600):  # all on one connection: one worker's
            assert kept.post("/v1/chat/completions", json=body).status_code == 200
        shared.until(CHAT, in_flight=0)
        assert_fold_is_live(http)
    assert shared.kinds(CHAT).count("BatchReturned") >= 2
    asked = [event for event in events(shared, "AskAdmitted") if event["cause"]["message"] == "Acquire"]
    assert len(asked) < 10


def test_a_stream_in_a_worker_holds_the_sleep_off_and_unused_tickets_do_not(shared: WorkerRig):
    shared.warm(CHAT)
    with shared.stream(CHAT, gate="held") as (_, lines):
        next(lines)
        shared.waits_at(CHAT, "held")
        shared.until(CHAT, in_flight=1)
        sleeping = Thread(target=lambda: shared.command("sleep", CHAT))
        sleeping.start()
        shared.until(CHAT, phase="draining", in_flight=1)
        assert wait_until(lambda: shared.lent(CHAT) == 0, BOUND_S)
        shared.let(CHAT, "held")
        assert list(lines)[-1] == "[DONE]"
    sleeping.join(BOUND_S)
    assert shared.view(CHAT)["phase"] == "asleep"
    assert shared.stats(CHAT)["sleeps_while_running"] == 0
    woken = shared.chat(CHAT)
    assert (woken.status_code, woken.headers["x-vllama-state"]) == (200, "wake")


def test_a_forced_sleep_cuts_off_streams_in_workers(shared: WorkerRig):
    shared.warm(CHAT)
    with shared.stream(CHAT, gate="forced") as (_, lines):
        next(lines)
        shared.waits_at(CHAT, "forced")
        assert shared.command("sleep", CHAT, force=True).json()["phase"] == "asleep"
        last = list(lines)[-1]
    assert json.loads(last)["error"]["code"] == "stopped"


def test_a_name_that_the_workers_do_not_know_is_sought_and_explained(shared: WorkerRig):
    unknown = shared.chat("tiny/chatt")
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "model_not_found")
    assert "did you mean tiny/chat or" in error_of(unknown)["message"]


def test_info_shows_the_workers(shared: WorkerRig):
    assert {worker["pid"] for worker in shared.workers()} == shared.helpers()
    assert len(shared.helpers()) == COUNT
    shown = shared.server.cli("info").stdout
    assert all(str(pid) in shown for pid in shared.helpers())


# --- deaths


def test_kill_9_of_a_worker_breaks_its_own_connections_and_frees_its_tickets(rig: WorkerRig):
    rig.warm(CHAT)
    with rig.stream(CHAT, gate="a") as (_, lines):
        next(lines)
        rig.waits_at(CHAT, "a")
        victim = rig.serving()
        with open_on_other(rig, victim) as other:
            kill(victim)
            with pytest.raises(httpx.TransportError):
                list(lines)
            rig.until(CHAT, in_flight=1)  # the other worker's
            rig.let(CHAT, "b")
            assert b"[DONE]" in read_all(other)
    rig.until(CHAT, in_flight=0)
    assert rig.command("sleep", CHAT).json()["phase"] == "asleep"  # all that it held has come back
    assert rig.stats(CHAT)["sleeps_while_running"] == 0
    rig.until_ready(COUNT + 1)
    assert rig.noted("worker_lost") == 1
    assert victim not in rig.helpers()
    rig.warm(CHAT)
    assert_fold_is_live(rig.http)


def open_on_other(rig: WorkerRig, victim: int) -> socket.socket:
    """A stream that another worker serves; those that the victim got are closed again."""
    body = chat_body(CHAT, "b", stream=True)
    found: list[socket.socket] = []

    def elsewhere() -> bool:
        sock = rig.hanging(body)
        rig.waits_at(CHAT, "b")
        if any(worker["in_flight"] for worker in rig.workers() if worker["pid"] != victim):
            found.append(sock)
            return True
        sock.close()
        rig.until(CHAT, in_flight=1)
        return False

    assert wait_until(elsewhere, BOUND_S)
    return found[0]


def read_all(sock: socket.socket) -> bytes:
    """A chunked answer up to its end."""
    got = b""
    while not got.endswith(b"0\r\n\r\n"):
        more = sock.recv(65536)
        if not more:
            break
        got += more
    return got


def test_requests_go_on_while_all_workers_are_killed_again_and_again(rig: WorkerRig):
    rig.warm(CHAT)
    for times in (2, 4):
        for pid in rig.helpers():
            kill(pid)
        assert rig.chat(CHAT).status_code == 200  # by this process itself, until there are others
        rig.until_ready(COUNT + times)
    rig.until(CHAT, in_flight=0)
    assert_fold_is_live(rig.http)


def test_a_worker_that_gives_nothing_back_is_killed(make):
    rig = make(env={"VLLAMA_WORKER_ANSWER_S": "0.5"})
    rig.warm(CHAT)
    (victim, *_) = rig.helpers()
    kill(victim, signal.SIGSTOP)

    def command(_: int) -> int:
        """Some of them wait at the worker that is stopped, and break with it."""
        with fresh_client(rig.server) as http:
            try:
                return http.post("/control/sleep", json={"model": CHAT}).status_code
            except httpx.TransportError:
                return 0

    with ThreadPoolExecutor(16) as pool:
        assert 200 in pool.map(command, range(16))
    assert rig.noted("worker_lost") == 1
    assert victim not in rig.helpers()
    assert rig.stats(CHAT)["sleeps_while_running"] == 0


def test_kill_9_of_the_server_leaves_no_worker_and_no_engine(rig: WorkerRig):
    rig.warm(CHAT)
    with rig.stream(CHAT, gate="a") as (_, lines):
        next(lines)
        rig.server.look()
        kill(rig.server.pid)
        with pytest.raises(httpx.TransportError):
            list(lines)
        rig.server.process.wait(BOUND_S)
    assert rig.server.wait_nothing_left(BOUND_S) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_to_all_drains_through_the_workers(make, number: signal.Signals):
    rig = make(own_group=True)
    rig.warm(CHAT)
    with rig.stream(CHAT, gate="a") as (_, lines):
        next(lines)
        rig.waits_at(CHAT, "a")
        port, helpers = rig.view(CHAT)["port"], rig.helpers()
        rig.server.look()
        if number is signal.SIGTERM:  # as a service manager sends it; the fake engine is not deaf to it
            for pid in (*helpers, rig.server.pid):
                kill(pid, number)
        else:
            os.killpg(rig.server.pid, number)
        assert wait_until(lambda: rig.http.get("/health").status_code == 503, BOUND_S)
        assert rig.helpers() == helpers
        for _ in range(8):  # whichever worker it comes to
            new = rig.chat(CHAT)
            assert (new.status_code, error_of(new)["code"]) == (503, "shutting_down")
            assert int(new.headers["retry-after"]) >= 1
        httpx.post(f"http://127.0.0.1:{port}/fake/gate?name=a", trust_env=False).raise_for_status()
        assert list(lines)[-1] == "[DONE]"
    assert rig.server.process.wait(BOUND_S) == 0
    assert rig.server.wait_nothing_left(BOUND_S) == []


def test_a_drain_that_takes_too_long_cuts_streams_in_workers_off(make):
    rig = make(args=("--shutdown-timeout", "0.5"))
    rig.warm(CHAT)
    with rig.stream(CHAT, gate="a") as (_, lines):
        next(lines)
        rig.waits_at(CHAT, "a")
        rig.server.look()
        rig.server.process.send_signal(signal.SIGTERM)
        last = list(lines)[-1]
    assert json.loads(last)["error"]["code"] == "shutting_down"
    assert rig.server.process.wait(BOUND_S) == 0
    assert rig.server.wait_nothing_left(BOUND_S) == []


# --- connections


def test_what_is_not_a_workers_goes_to_the_system_with_its_connection(shared: WorkerRig):
    """On one connection: data, then control, then data again."""
    with httpx.Client(base_url=shared.server.url, trust_env=False, timeout=BOUND_S) as http:
        for _ in range(4):
            assert http.post("/v1/chat/completions", json=chat_body(CHAT)).status_code == 200
            assert http.get("/v1/models").json()["data"]
            assert http.get("/debug/events", params={"follow": 0}).status_code == 200
            assert http.get("/nothing").status_code == 404
    foreign = shared.http.get("/control/ps", headers={"Host": "evil.example"})
    assert foreign.status_code == 403
    asked = shared.http.post("/control/start", json={"model": EMBED})
    assert asked.json()["phase"] == "awake"


def test_a_request_line_in_pieces_and_one_behind_another(shared: WorkerRig):
    body = json.dumps(chat_body(CHAT)).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", shared.server.port), timeout=BOUND_S) as sock:
        sock.sendall(b"GET /hea")
        shared.http.get("/health")
        sock.sendall(b"lth HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    with socket.create_connection(("127.0.0.1", shared.server.port), timeout=BOUND_S) as sock:
        sock.sendall((head + body) * 3)
        got = b""
        while got.count(b"HTTP/1.1 200 OK") < 3:
            more = sock.recv(65536)
            assert more, got
            got += more


def test_a_connection_that_was_handed_over_is_closed_to_its_client(shared: WorkerRig):
    """Who asked for no more waits for the end of the bytes; a descriptor that anybody keeps would hold it off."""
    for _ in range(4):  # whichever worker accepts it
        with socket.create_connection(("127.0.0.1", shared.server.port), timeout=BOUND_S) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            got = b""
            while more := sock.recv(65536):
                got += more
            assert got.startswith(b"HTTP/1.1 200")


def test_a_big_body_of_a_route_that_is_the_systems_arrives_whole(shared: WorkerRig):
    """/v1/responses is served by one process, which remembers who made what; the first bytes were read by another."""
    text = "word " * 200_000
    asked = shared.http.post("/v1/responses", json={"model": CHAT, "input": text})
    assert asked.status_code == 200
    again = shared.http.get(f"/v1/responses/{asked.json()['id']}")
    assert again.status_code == 200


def test_a_second_server_on_the_port_is_refused(shared: WorkerRig):
    for workers in ("1", "2"):
        env = shared.server.environ | {"VLLAMA_WORKERS": workers}
        command = [sys.executable, "-m", "vllama.cli.main", "serve", "--port", str(shared.server.port)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert f"port {shared.server.port} on 127.0.0.1 is taken by pid" in done.stderr
