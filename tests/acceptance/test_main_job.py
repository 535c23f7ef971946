"""The main job over a real server: models that do not fit together take turns, and nothing is lost."""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest
from serving import Vllama, wait_until

from tests.api.caches import CHAT, EMBED
from tests.api.rig import chat_body
from vllama.actors.codec import encode
from vllama.actors.journal import load

ONE_FITS = "600MiB"
TAKES = {"FAKE_VLLM_WEIGHTS_BYTES": str(300 * 2**20)}  # each really takes this while it is awake
BOUND_S = 120.0
TAIL = 60  # records of the journal that a failure shows
LOOKS = ('"TickSet"', '"MeasureBegun"', '"DevicesMeasured"')  # what is written while nothing happens
Make = Callable[..., Vllama]


def ask(http: httpx.Client, model: str) -> httpx.Response:
    if model == EMBED:
        return http.post("/v1/embeddings", json={"model": model, "input": ["a cat"]})
    return http.post("/v1/chat/completions", json=chat_body(model))


def client(server: Vllama) -> httpx.Client:
    return httpx.Client(base_url=server.url, trust_env=False, timeout=BOUND_S)


def kinds(server: Vllama, model: str) -> Counter[str]:
    return Counter(event["kind"] for event in server.events() if event.get("actor") == model)


def assert_fold_is_live(http: httpx.Client) -> None:
    """Law 5, on the running server."""
    lines = [json.loads(line) for line in http.get("/debug/journal").text.splitlines()]
    states, _ = load(lines)
    live = lines[-1]["states"]
    assert {actor: encode(states.state(actor)) for actor in live} == live


def what_it_says(server: Vllama) -> str:
    """Of a server that makes its clients wait: who holds what, why, and what happened last. Raises nothing."""
    said = []
    for path in ("/control/ps", "/debug/explain?limit=10", "/debug/journal"):
        try:
            text = httpx.get(server.url + path, timeout=10, trust_env=False).text
        except httpx.HTTPError as error:
            text = repr(error)
        lines = [line for line in text.splitlines() if not any(f'"kind": {look}' in line for look in LOOKS)]
        said += [f"--- {path} ---", *lines[-TAIL:]]
    return "\n".join(said) + server.log_tail()


@pytest.fixture
def server(request: pytest.FixtureRequest, vllama_server: Make, fake_cache: Path) -> Vllama:
    """With so many worker processes as the test asks for by its parameter."""
    workers = getattr(request, "param", 1)
    env = {"VLLAMA_BUSY_GRACE_S": "0.2", "VLLAMA_WORKERS": str(workers), **TAKES}
    return vllama_server(fake_cache, memory_limit=ONE_FITS, fake=True, env=env)


def test_twenty_first_requests_while_another_is_evicted_are_one_start(server: Vllama) -> None:
    with client(server) as http, ThreadPoolExecutor(20) as pool:
        assert ask(http, CHAT).status_code == 200
        answers = list(pool.map(lambda _: ask(http, EMBED), range(20)))
        assert [answer.status_code for answer in answers] == [200] * 20
        assert kinds(server, EMBED)["EngineSpawned"] == 1
        assert kinds(server, CHAT)["EngineSlept"] == 1
        assert_fold_is_live(http)


class Visitor:
    """One client: some requests in full, some as streams, some that hang up half-way."""

    def __init__(self, server: Vllama, seed: int, log: Counter[str], lock: threading.Lock) -> None:
        self.rng = random.Random(seed)
        self.server = server
        self.log = log
        self.lock = lock

    def visit(self, requests: int) -> None:
        with client(self.server) as http:
            for _ in range(requests):
                how = self.rng.choice(("plain", "plain", "stream", "stream", "leave", "leave early"))
                came_to = getattr(self, how.replace(" ", "_"))(http, self.rng.choice((CHAT, EMBED)))
                with self.lock:
                    self.log[f"{how}: {came_to}"] += 1

    def plain(self, http: httpx.Client, model: str) -> str:
        return str(ask(http, model).status_code)

    def stream(self, http: httpx.Client, model: str) -> str:
        body = chat_body(CHAT, stream=True)
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = [line for line in answer.iter_lines() if line]
        return "whole" if lines[-1] == "data: [DONE]" else f"cut: {lines[-1:]}"

    def leave(self, http: httpx.Client, model: str) -> str:
        body = chat_body(CHAT, stream=True)
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_lines(), None)
        return "left"

    def leave_early(self, http: httpx.Client, model: str) -> str:
        try:
            http.post("/v1/chat/completions", json=chat_body(CHAT), timeout=0.05)
        except httpx.TimeoutException:
            return "left"
        return "left"


@pytest.mark.slow
@pytest.mark.timeout(BOUND_S + 60)  # so that it is we who say that clients wait: we know the server
@pytest.mark.parametrize("server", [1, 2], indirect=True, ids=["one process", "two workers"])
def test_two_hundred_requests_in_random_order_from_eight_clients(server: Vllama) -> None:
    log: Counter[str] = Counter()
    lock = threading.Lock()
    with ThreadPoolExecutor(8) as pool:
        visits = [pool.submit(Visitor(server, seed, log, lock).visit, 25) for seed in range(8)]
        _, waiting = wait(visits, BOUND_S)
        if waiting:
            told = what_it_says(server)
            server.kill()  # or they would wait on
            pytest.fail(f"{len(waiting)} of 8 clients still wait; so far {log}\n{told}", pytrace=False)
        for visit in visits:
            visit.result()
    assert sum(log.values()) == 200
    assert set(log) <= {"plain: 200", "stream: whole", "leave: left", "leave early: left"}, log
    with client(server) as http:

        def quiet() -> bool:
            instances = http.get("/control/ps").json()["instances"]
            return all(i["in_flight"] == i["waiting"] == 0 for i in instances)

        assert wait_until(quiet, 30), server.log_tail()
        assert_fold_is_live(http)
        for instance in http.get("/control/ps").json()["instances"]:
            stats = httpx.get(f"http://127.0.0.1:{instance['port']}/fake/stats", trust_env=False).json()
            assert stats["sleeps_while_running"] == 0, stats
    swaps = kinds(server, CHAT)["EngineSlept"] + kinds(server, EMBED)["EngineSlept"]
    assert swaps >= 2, "the two never took turns: the test shows nothing"
    lost = [event for event in server.events() if event["kind"] in ("EngineGone", "EngineFaulted")]
    assert lost == []
