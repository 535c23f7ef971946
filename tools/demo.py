"""The main job, end to end, on this machine: two real models behind one endpoint, with memory for one of them awake.

Prints what happens as it happens. Exits 1, with the reason and the server's last lines, if anything is not as it should be.
"""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import httpx
from models import CHAT, EMBEDDING, HUB
from serving import ServerError, Vllama

if TYPE_CHECKING:
    from openai import OpenAI

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".demo" / "server"
# With the preloaded process (458), the chat model awake (790) and the other asleep (277) take 1525 MiB; both awake 1662 or more.
MEMORY_LIMIT = "1590MiB"
# As its files are; halved, it would hold little more awake than asleep.
MODELS_YAML = f"{EMBEDDING}:\n  dtype: float32\n"
QUESTION = "What is the capital of France?"
SENTENCES = ("The cat sits on the mat.", "A kitten rests on a rug.", "Stock markets fell sharply on Monday.")
REQUEST_TIMEOUT_S = 300
# X-Vllama-State: how the request found its model.
FOUND = {"warm": "awake", "wake": "asleep", "cold": "not running"}
WAKE_STEPS = ("wake_weights", "reload_weights", "wake_kv_cache")
# What the broker notes of itself between decisions; the story is told without it.
UNTOLD = frozenset({
    "DevicesMeasured", "MeasureBegun", "TickSet", "TimerArmed", "WatchChanged", "WatchEnded", "UseChanged",
})  # fmt: skip
BEGAN = float(os.environ.get("DEMO_BEGAN") or time.time())


class DemoError(Exception):
    """Something is not as it should be."""


def say(text: str) -> None:
    print(f"[{time.time() - BEGAN:6.1f} s] {text}", flush=True)


def tell(text: str) -> None:
    print(f"           {text}", flush=True)


def check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoError(otherwise)


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


class Story:
    """The steps of the demo against one server, and what its journal said meanwhile."""

    def __init__(self, server: Vllama, client: "OpenAI") -> None:
        self.server = server
        self.client = client
        self.seq = 0

    def news(self) -> list[dict[str, Any]]:
        """The journal's records since the last time."""
        records = self.server.events(self.seq)
        self.seq = max((record["seq"] for record in records if "seq" in record), default=self.seq)
        return records

    def ask(self) -> str:
        """The chat model's answer to the question, greedy."""
        self.news()
        say(f"chat: {QUESTION}  ({CHAT})")
        began = time.monotonic()
        raw = self.client.chat.completions.with_raw_response.create(
            model=CHAT, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=32
        )
        answer = raw.parse().choices[0].message.content or ""
        self.report(raw.headers, time.monotonic() - began)
        tell(f"answer: {answer}")
        return answer

    def embed(self) -> None:
        self.news()
        say(f"embeddings of three sentences  ({EMBEDDING})")
        began = time.monotonic()
        raw = self.client.embeddings.with_raw_response.create(
            model=EMBEDDING, input=list(SENTENCES), encoding_format="float"
        )
        vectors = [item.embedding for item in raw.parse().data]
        self.report(raw.headers, time.monotonic() - began)
        cats, other = cosine(vectors[0], vectors[1]), cosine(vectors[0], vectors[2])
        tell(f"{len(vectors[0])} dimensions; cat and kitten {cats:.2f}, cat and stock market {other:.2f}")
        check(cats > other, "the two sentences about cats are not nearer to each other than to the third")

    def stream(self) -> None:
        self.news()
        say(f"chat, streamed: Name three colours.  ({CHAT})")
        began = time.monotonic()
        first = 0.0
        pieces: list[str] = []
        finish = None
        print("           ", end="")
        with self.client.chat.completions.create(
            model=CHAT,
            messages=[{"role": "user", "content": "Name three colours."}],
            temperature=0,
            max_tokens=32,
            stream=True,
        ) as chunks:
            for chunk in chunks:
                for choice in chunk.choices:
                    finish = choice.finish_reason or finish
                    if choice.delta.content:
                        first = first or time.monotonic() - began
                        pieces.append(choice.delta.content)
                        print(choice.delta.content.replace("\n", " "), end="", flush=True)
        print()
        tell(f"first token after {first:.2f} s, {len(pieces)} pieces in {time.monotonic() - began:.1f} s")
        check(len(pieces) > 1, f"the stream came in {len(pieces)} piece(s)")
        check(finish is not None, "the stream ended without a finish_reason")

    def report(self, headers: Any, took_s: float) -> None:
        """How the request was served, by the response's own headers."""
        found = FOUND.get(headers.get("x-vllama-state", ""), "in a state of which the answer says nothing")
        waited = float(headers.get("x-vllama-wait-ms", 0)) / 1000
        tell(f"answered after {took_s:.1f} s; the model was {found}, {waited:.1f} s of it until it was ready")

    def steps(self, records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
        """What each step took, told and returned by model."""
        by_model: dict[str, dict[str, float]] = {}
        for record in records:
            kind, model = record.get("kind"), str(record.get("actor"))
            if kind == "EnginePlaced":
                mode = record["mode"] + (f" ({record['mode_reason']})" if record["mode_reason"] else "")
                tell(f"  {model}: started by {mode}, pid {record['pid']}, port {record['port']}")
            elif kind == "EngineSlept":
                freed, left = record["freed_bytes"] / 2**20, record["residue_bytes"] / 2**20
                tell(f"  {model}: asleep at level {record['level']} in {record['took_s']:.2f} s, "
                     f"{freed:.0f} MiB came free, {left:.0f} MiB are left")  # fmt: skip
            elif kind == "EngineRose":
                took = by_model[model] = {name: float(seconds) for name, seconds in record["steps_s"]}
                parts = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in took.items())
                tell(f"  {model}: {parts}")
            elif kind == "EngineMeasured":
                tell(f"  {model}: holds {record['footprint_bytes'] / 2**20:.0f} MiB")
        return by_model

    def phase(self, model: str) -> tuple[str, int]:
        views = {view["model"]: view for view in self.server.get("/control/ps")["instances"]}
        check(model in views, f"vllama ps does not know {model}: {sorted(views)}")
        return views[model]["phase"], views[model]["level"]

    def check_asleep(self, model: str) -> None:
        phase, level = self.phase(model)
        check((phase, level) == ("asleep", 2), f"{model} is {phase} (level {level}), not asleep at level 2")

    def run(self) -> None:
        answer = self.ask()
        say(f"first answer {time.time() - BEGAN:.1f} s after the command")
        check("Paris" in answer, f"the answer does not say Paris: {answer!r}")
        self.steps(self.news())

        self.embed()
        self.steps(self.news())
        self.check_asleep(CHAT)

        again = self.ask()
        swap = self.news()
        took = self.steps(swap).get(CHAT, {})
        check(
            again == answer,
            f"the same question got another text after the wake: {again!r}, before {answer!r}",
        )
        missing = [step for step in WAKE_STEPS if step not in took]
        check(
            not missing,
            f"the chat model was not woken in three steps: {', '.join(missing)} missing in {took}",
        )
        phase, _ = self.phase(EMBEDDING)
        check(phase in ("asleep", "stopped"), f"{EMBEDDING} is {phase}: there was memory for both")
        tell(f"the very same text; the embedding model is {phase}")

        self.stream()
        say("vllama ps")
        shown = self.server.cli("ps")
        check(shown.returncode == 0, f"vllama ps exited with {shown.returncode}: {shown.stderr}")
        print(shown.stdout)
        say("the events of the last swap")
        self.show(swap)

    def show(self, records: list[dict[str, Any]]) -> None:
        """One line a record: time since the first, who, what."""
        zero = records[0]["at"] if records else 0.0
        for record in records:
            if record.get("kind") in UNTOLD or "seq" not in record:
                continue
            fields = {
                key: value
                for key, value in record.items()
                if key not in ("seq", "at", "actor", "cause", "kind")
            }
            text = ", ".join(
                f"{key}={value}" for key, value in fields.items() if value not in ("", None, (), [])
            )
            actor = str(record["actor"]).rpartition("/")[2]
            tell(
                f"#{record['seq']:<5} +{record['at'] - zero:6.2f} s  {actor:24.24} {record['kind']:18} {text[:110]}"
            )


def run() -> None:
    server = Vllama(FOLDER, HUB, memory_limit=MEMORY_LIMIT)
    server.log.unlink(missing_ok=True)
    (server.config_dir / "models.yaml").write_text(MODELS_YAML, encoding="utf-8")
    say(f"vllama serve on {server.url}, memory limit {MEMORY_LIMIT}, log {server.log}")
    server.launch()
    try:
        # Imported while the server loads: it is a second that the first answer need not wait for.
        from openai import OpenAI, OpenAIError

        server.wait_healthy()
        say("it answers /health; engines are being preloaded")
        with OpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=REQUEST_TIMEOUT_S
        ) as client:
            try:
                Story(server, client).run()
            except OpenAIError as error:
                raise DemoError(f"a request failed: {type(error).__name__}: {error}") from error
        say("stopping the server by SIGTERM")
        server.end()
        say("it exited 0 and left no process behind")
    except (DemoError, httpx.HTTPError, subprocess.TimeoutExpired) as error:
        raise DemoError(f"{error}{server.log_tail()}") from error
    finally:
        server.kill()


def interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the demo as Ctrl-C does: by its own clean-up."""
    raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGTERM, interrupt)
    try:
        run()
    except (DemoError, ServerError, OSError) as error:
        print(f"demo: FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    say("demo: everything was as it should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
