"""A cold start through vllama, its zygote ready, against a plain start of the same vLLM with the same arguments.

Both are timed from the wish (the request, the process's creation) to the first token's answer; five in turn.
"""

import ast
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
from common import CHAT, HUB, Vllama, median, publish, server, wait_until, wait_zygote
from serving import free_port

TURNS = 5
TIMEOUT_S = 300
REQUEST = {
    "model": CHAT,
    "messages": [{"role": "user", "content": "Hello"}],
    "temperature": 0,
    "max_tokens": 1,
}
# Of the logged arguments, those that name one launch.
OWN_ARGUMENTS = frozenset({"host", "port", "uds"})


def plain_arguments(vllama: Vllama) -> list[str]:
    """The arguments of the engine that vllama started, as vLLM itself logged them, its address left out."""
    view = next(v for v in vllama.get("/control/ps")["instances"] if v["model"] == CHAT)
    found = re.findall(
        r"non-default args: (\{.*\})", Path(view["log"]).read_text(encoding="utf-8", errors="replace")
    )
    if not found:
        raise SystemExit(f"{view['log']} does not say with which arguments vLLM was started")
    arguments = []
    for name, value in ast.literal_eval(found[-1]).items():
        if name in OWN_ARGUMENTS or value is None:
            continue
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(option if value else f"--no-{option[2:]}")
        else:
            arguments += [option, *map(str, value if isinstance(value, list) else [value])]
    return arguments


def ask(client: httpx.Client, url: str) -> None:
    client.post(f"{url}/v1/chat/completions", json=REQUEST).raise_for_status()


def plain_turn(client: httpx.Client, arguments: list[str], folder: Path) -> float:
    """Seconds from the creation of a plain vLLM server to its first answer."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    env = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_SERVER_DEV_MODE": "1",
    }
    with (folder / "plain.log").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:

        def healthy() -> bool:
            if process.poll() is not None:
                raise SystemExit(
                    f"the plain server ended with {process.returncode}; see {folder / 'plain.log'}"
                )
            try:
                return client.get(f"{url}/health").status_code == 200
            except httpx.TransportError:
                return False

        if not wait_until(healthy, TIMEOUT_S):
            raise SystemExit(f"the plain server was not ready in {TIMEOUT_S} s; see {folder / 'plain.log'}")
        ask(client, url)
        return time.perf_counter() - began
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def vllama_turn(client: httpx.Client, vllama: Vllama) -> float:
    """Seconds from a request for a model that is not running to its answer. The model is stopped again afterwards."""
    began = time.perf_counter()
    ask(client, vllama.url)
    took = time.perf_counter() - began
    view = next(v for v in vllama.get("/control/ps")["instances"] if v["model"] == CHAT)
    if view["mode"] != "fork":
        raise SystemExit(f"the engine was not forked: {view['mode_reason']}")
    client.post(f"{vllama.url}/control/stop", json={"model": CHAT}).raise_for_status()
    return took


def main() -> None:
    forked: list[float] = []
    plain: list[float] = []
    timeout = httpx.Timeout(TIMEOUT_S)
    with server("start", HUB) as vllama, httpx.Client(timeout=timeout, trust_env=False) as client:
        wait_zygote(vllama)
        vllama_turn(client, vllama)  # not counted: the files come into the page cache for both
        arguments = plain_arguments(vllama)
        print("plain server's arguments:", " ".join(arguments))
        for _ in range(TURNS):
            forked.append(vllama_turn(client, vllama))
            plain.append(plain_turn(client, arguments, vllama.folder))
    ratio = [a / b for a, b in zip(forked, plain, strict=True)]
    publish(
        "start",
        {"vllama s": forked, "plain s": plain, "ratio": ratio},
        {
            "ratio_median": median(ratio, 4),
            "vllama_s_median": median(forked),
            "plain_s_median": median(plain),
            "vllama_s_max": round(max(forked), 3),
        },
    )


if __name__ == "__main__":
    main()
