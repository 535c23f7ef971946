"""A server with fake engines, as tests of the edge use it: requests through vllama, and a line to each engine behind it."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from serving import Vllama, wait_until

BOUND_S = 30.0


class Rig:
    """One `vllama serve`, with the fake engines that it starts."""

    def __init__(self, server: Vllama, faults) -> None:
        self.server = server
        self.http = httpx.Client(base_url=server.url, trust_env=False, timeout=BOUND_S)
        self._direct = httpx.Client(trust_env=False, timeout=BOUND_S)
        self._faults = faults

    def close(self) -> None:
        self.http.close()
        self._direct.close()

    # --- through vllama

    def chat(self, model: str, *, gate: str = "", headers: dict | None = None, **more: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json=chat_body(model, gate, **more), headers=headers)

    @contextmanager
    def stream(
        self, model: str, *, gate: str = "", **more: Any
    ) -> Iterator[tuple[httpx.Response, Iterator[str]]]:
        """A streamed chat: the answer and its events' data."""
        body = chat_body(model, gate, stream=True, **more)
        with self.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = (line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: "))
            yield answer, lines

    def hanging(self, body: dict) -> socket.socket:
        """A chat whose answer nobody reads; closing the socket is the hang-up."""
        data = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        sock = socket.create_connection(("127.0.0.1", self.server.port), timeout=BOUND_S)
        sock.sendall(head.encode() + data)
        return sock

    def command(self, verb: str, model: str, **more: Any) -> httpx.Response:
        return self.http.post(f"/control/{verb}", json={"model": model} | more)

    def view(self, model: str) -> dict[str, Any]:
        views = self.http.get("/control/ps").raise_for_status().json()["instances"]
        return next(
            (view for view in views if view["model"] == model), {"phase": "", "in_flight": 0, "waiting": 0}
        )

    def until(self, model: str, **wanted: object) -> None:
        """The instance comes to look like this."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.update(self.view(model))
            return all(seen.get(key) == value for key, value in wanted.items())

        assert wait_until(there, BOUND_S), f"{model} is {seen}, not {wanted}{self.server.log_tail()}"

    def kinds(self, model: str) -> list[str]:
        """What has happened to a model, by kind of event."""
        return [event["kind"] for event in self.server.events() if event.get("actor") == model]

    # --- straight to the engine

    def engine(self, model: str, method: str, path: str) -> httpx.Response:
        return self._direct.request(
            method, f"http://127.0.0.1:{self.view(model)['port']}{path}"
        ).raise_for_status()

    def stats(self, model: str) -> dict[str, Any]:
        return self.engine(model, "GET", "/fake/stats").json()

    def waits_at(self, model: str, gate: str, count: int = 1) -> None:
        """Returns when so many generations wait at the gate."""
        self.engine(model, "GET", f"/fake/gate?name={gate}&count={count}")

    def let(self, model: str, gate: str) -> None:
        self.engine(model, "POST", f"/fake/gate?name={gate}")

    def kill_engine(self, model: str) -> None:
        os.kill(self.stats(model)["pid"], signal.SIGKILL)

    def faults(self, *entries: str) -> None:
        """From now on engines do this wrong."""
        self._faults.write_text("\n".join(entries))


def chat_body(model: str, gate: str = "", **more: Any) -> dict[str, Any]:
    question = {"role": "user", "content": "What is the capital of France?"}
    return {"model": model, "messages": [question], "user": f"gate:{gate}" if gate else "", **more}


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error, after checking that it has OpenAI's shape."""
    return error_in(answer.json())


def error_in(tree: dict[str, Any]) -> dict[str, Any]:
    assert set(tree) == {"error"}
    assert set(tree["error"]) == {"message", "type", "param", "code"}
    assert tree["error"]["param"] is None
    assert tree["error"]["message"]
    return tree["error"]
