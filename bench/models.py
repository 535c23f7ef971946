"""How long GET /v1/models takes with 1,000 models in the cache, and how a warm request fares beside it; the limit is 50 ms."""

import concurrent.futures
import http.client
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, Vllama, publish, server, wait_until

sys.path.insert(0, str(ROOT))

from tests.api.caches import make_cache

MODELS = 1000
TURNS = 30
LIMIT_MS = 50.0


def ask(connection: http.client.HTTPConnection, path: str) -> tuple[float, dict]:
    """Milliseconds to the last byte, and the answer."""
    began = time.perf_counter()
    connection.request("GET", path)
    data = connection.getresponse().read()
    took = (time.perf_counter() - began) * 1000
    return took, json.loads(data)


def connect(vllama: Vllama) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", vllama.port, timeout=60)


def health_beside_a_list(vllama: Vllama) -> list[float]:
    """What a small request takes while lists are made: the loop is not held."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        lists = connect(vllama)
        busy = pool.submit(lambda: [ask(lists, "/v1/models") for _ in range(TURNS)])
        small = connect(vllama)
        beside = []
        while not busy.done():
            beside.append(ask(small, "/health")[0])
    return beside


def main() -> None:
    names = {f"org{n % 50}/model-{n:04}": "Qwen3ForCausalLM" for n in range(MODELS)}
    with tempfile.TemporaryDirectory() as folder:
        cache = make_cache(Path(folder) / "hub", names)
        env = {"VLLAMA_ENGINE_START": "exec"}
        with server("models", cache, env=env) as vllama:
            connection = connect(vllama)
            first, listed = ask(connection, "/v1/models")
            assert len(listed["data"]) == MODELS
            lists = [ask(connection, "/v1/models")[0] for _ in range(TURNS)]
            one = [ask(connection, "/v1/models/org7/model-0007")[0] for _ in range(TURNS)]
            beside = health_beside_a_list(vllama)
            make_cache(cache, {"org/new": "Qwen3ForCausalLM"})
            began = time.perf_counter()
            wait_until(lambda: len(ask(connection, "/v1/models")[1]["data"]) == MODELS + 1, 30)
            noticed = time.perf_counter() - began
    median = round(statistics.median(lists), 2)
    publish(
        "models",
        {"list ms": lists, "one ms": one},
        {
            "models": MODELS,
            "first_list_ms": round(first, 1),
            "list_ms_median": median,
            "list_ms_max": round(max(lists), 2),
            "one_ms_median": round(statistics.median(one), 2),
            "health_beside_lists_ms_max": round(max(beside), 2),
            "new_model_noticed_s": round(noticed, 2),
            "limit_ms": LIMIT_MS,
        },
    )
    if median > LIMIT_MS:
        raise SystemExit(f"{MODELS} models took {median} ms to list, more than {LIMIT_MS} ms")


if __name__ == "__main__":
    main()
