"""A lively server for looking at: two fake GPUs, models of several kinds with familiar names, and traffic that makes them swap.

The server, its actors and its journal are real; the engines are the tests' fakes, so it runs on any machine and needs no model.
"""

import itertools
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
from serving import Vllama

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.acceptance.gpu_rig import models_of, write_models  # noqa: E402
from tests.fakes.fake_gpu import GIB, FakeGpus, compile_driver  # noqa: E402

FAKE_ENGINE = ROOT / "tests" / "fakes" / "fake_vllm.py"
CHATS = {
    "Qwen/Qwen3-8B": 16 * GIB,
    "Qwen/Qwen3-0.6B": 2 * GIB,
    "meta-llama/Llama-3.2-3B-Instruct": 6 * GIB,
    "mistralai/Mistral-7B-Instruct-v0.3": 14 * GIB,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 4 * GIB,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B-with-a-rather-long-name-of-a-quantized-variant-AWQ": 6 * GIB,
}
BUSIEST = "mistralai/Mistral-7B-Instruct-v0.3"
EMBEDDING = {"BAAI/bge-m3": 2 * GIB}
RERANK = {"Qwen/Qwen3-Reranker-0.6B": 2 * GIB}
IDLE = {"google/gemma-3-4b-it": 8 * GIB, "microsoft/Phi-4-mini-instruct": 8 * GIB}
FAULTS = """slow_start_s=1.5
token_s=0.12
microsoft/Phi-4-mini-instruct:die_at_start
"""


@contextmanager
def lively(port: int = 0) -> Iterator[Vllama]:
    """A server with an hour's worth of nothing behind it; `busy` makes it swap."""
    with tempfile.TemporaryDirectory(prefix="vllama-scene-") as name:
        folder = Path(name)
        (folder / "driver").mkdir()
        gpus = FakeGpus(folder / "gpus")
        for _ in range(2):
            gpus.add(24 * GIB)
        hub = models_of(folder / "hub", CHATS | IDLE)
        models_of(hub, EMBEDDING, "BertModel")
        models_of(hub, RERANK, "Qwen3ForSequenceClassification")
        (folder / "faults").write_text(FAULTS)
        env = {
            "VLLAMA_ENGINE_ENTRY": str(FAKE_ENGINE),
            "VLLAMA_ENGINE_START": "exec",
            "FAKE_VLLM_FAULTS_FILE": str(folder / "faults"),
            "VLLAMA_BUSY_GRACE_S": "1",
            "VLLAMA_BACKOFF_S": "0.1",
        }
        write_models(folder / "server", "Qwen/Qwen3-0.6B: {sleep_level: 1, aliases: [small]}\n")
        server = Vllama(
            folder / "server", hub, env=env | gpus.env(compile_driver(folder / "driver")), port=port
        )
        gpus.hold_by(os.getpid(), 2 * GIB, "gpu1")  # somebody else's program
        server.start()
        try:
            yield server
        finally:
            server.kill()


def busy(server: Vllama, seconds: float) -> None:
    """Requests of several callers, for several models, for so long."""
    deadline = time.monotonic() + seconds
    draw = random.Random(4)
    rounds = itertools.cycle(CHATS)
    turn = threading.Lock()

    def caller(number: int) -> None:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=120) as http:
            while time.monotonic() < deadline:
                with turn:
                    model = next(rounds) if draw.random() < 0.5 else draw.choice(list(CHATS))
                question = {
                    "role": "user",
                    "content": draw.choice(["Tell me a story.", "Sing.", "Why is the sea salty?"]),
                }
                for _ in range(draw.randint(1, 4)):
                    body = {"model": model, "messages": [question], "max_tokens": 12}
                    http.post("/v1/chat/completions", json=body)
                if number == 0:
                    http.post("/v1/embeddings", json={"model": "BAAI/bge-m3", "input": "the sea"})
                    http.post(
                        "/v1/score", json={"model": "Qwen/Qwen3-Reranker-0.6B", "text_1": "a", "text_2": "b"}
                    )
                time.sleep(draw.uniform(0, 1.5))

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(caller, number) for number in range(3)]:
            done.result()


if __name__ == "__main__":
    with lively(port=int(sys.argv[1])) as running:
        print(f"{running.url}/ui", flush=True)
        while True:
            busy(running, 60)
            time.sleep(5)
