"""What vllama adds to a wake from level 2: request to first byte, against the raw calls sent straight to the same engine.

The raw side is the sum of the three wake calls, /is_sleeping, /reset_prefix_cache, the one-token probe and the request.
"""

import json
import time

import httpx
from common import CHAT, HUB, Vllama, median, publish, server, wait_until, wait_zygote

from vllama.host.probe import probe_calls

TURNS = 20
TIMEOUT_S = 120
REQUEST = {
    "model": CHAT,
    "messages": [{"role": "user", "content": "Say hello."}],
    "temperature": 0,
    "max_tokens": 4,
    "stream": True,
}


def first_byte(client: httpx.Client, url: str) -> float:
    """Seconds from the request to the first byte of its answer's body; the rest is read, untimed."""
    began = time.perf_counter()
    with client.stream("POST", f"{url}/v1/chat/completions", json=REQUEST) as answer:
        answer.raise_for_status()
        chunks = answer.iter_raw()
        next(chunks)
        took = time.perf_counter() - began
        for _ in chunks:
            pass
    return took


def raw_turn(client: httpx.Client, engine: str) -> tuple[float, float]:
    """The sum of the raw calls to an engine that sleeps, the request's first byte included; and the probe's part."""
    client.post(f"{engine}/sleep", params={"level": 2}).raise_for_status()
    path, body = probe_calls("chat", CHAT)[0]
    calls = [
        ("POST", "/wake_up?tags=weights", None),
        ("POST", "/collective_rpc", {"method": "reload_weights"}),
        ("POST", "/wake_up?tags=kv_cache", None),
        ("GET", "/is_sleeping", None),
        ("POST", "/reset_prefix_cache", None),
        ("POST", path, body),
    ]
    total = last = 0.0
    for method, target, data in calls:
        began = time.perf_counter()
        client.request(method, engine + target, json=data).raise_for_status()
        last = time.perf_counter() - began
        total += last
    return total + first_byte(client, engine), last


def vllama_turn(client: httpx.Client, vllama: Vllama, grant: list[float]) -> float:
    """A request to a sleeper through vllama, sent when the sleeper's memory has been measured to be back.

    `grant` takes the milliseconds from the request to the lease and the slot.
    """
    since = max((record["seq"] for record in vllama.events() if "seq" in record), default=0)
    done = client.post(f"{vllama.url}/control/sleep", json={"model": CHAT, "level": 2})
    if done.status_code != 200 or done.json()["phase"] != "asleep":
        raise SystemExit(f"the model could not be put to sleep: {done.text}")
    kinds = ("LeaseFreed",)
    if not wait_until(lambda: any(r.get("kind") in kinds for r in vllama.events(since)), TIMEOUT_S):
        raise SystemExit("the sleeper's lease was not freed: " + json.dumps(vllama.events(since)))
    took = first_byte(client, vllama.url)
    grant.append(span(vllama.events(since), "AskQueued", "SlotHeld") * 1000)
    return took


def span(records: list[dict], first: str, last: str) -> float:
    """Seconds between the last records of these two kinds."""
    at = {record.get("kind"): record["at"] for record in records if "at" in record}
    return at[last] - at[first]


def main() -> None:
    through: list[float] = []
    raw: list[float] = []
    probe: list[float] = []
    grant: list[float] = []
    with server("switch", HUB) as vllama, httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
        wait_zygote(vllama)
        first_byte(client, vllama.url)
        view = next(v for v in vllama.get("/control/ps")["instances"] if v["model"] == CHAT)
        engine = f"http://127.0.0.1:{view['port']}"
        for _ in range(TURNS):
            total, last = raw_turn(client, engine)
            raw.append(total * 1000)
            probe.append(last * 1000)
            through.append(vllama_turn(client, vllama, grant) * 1000)
    added = [a - b for a, b in zip(through, raw, strict=True)]
    publish(
        "switch",
        {"vllama ms": through, "raw ms": raw, "probe ms": probe, "grant ms": grant, "added ms": added},
        {
            "added_ms_median": median(added, 1),
            "probe_ms_median": median(probe, 1),
            "grant_ms_median": median(grant, 1),
            "vllama_ms_median": median(through, 1),
            "raw_ms_median": median(raw, 1),
        },
    )


if __name__ == "__main__":
    main()
