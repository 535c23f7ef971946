"""A real process that takes vLLM's arguments, speaks vLLM's endpoints and misbehaves as vLLM does. Stdlib only.

    python fake_vllm.py --model PATH --served-model-name ID --host 127.0.0.1 --port N [anything else vLLM knows]

Memory: `--kv-cache-memory-bytes` and the size of the weights files of PATH (FAKE_VLLM_WEIGHTS_BYTES overrides it) are
really taken, and given back by sleep; from a GPU of the fake driver where CUDA_VISIBLE_DEVICES names one (fake_cuda.py).
Faults: fake_faults.py. Beyond vLLM's own endpoints:

    GET  /fake/last                       the body of the last request for inference
    GET  /fake/stats                      counts: requests, completed, aborted, sleeps, sleeps_while_running, ...
    POST /fake/gate?name=N[&tokens=K]     lets K tokens pass the gate N, or all from now on. A generation whose request
                                          says `"user": "gate:N"` waits there after its first token.
    GET  /fake/gate?name=N[&count=K]      answers when K (1) generations wait at the gate N
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import fake_answers as answers
import fake_metrics
import fake_realtime
import fake_talk
from fake_arguments import read_arguments, served_names
from fake_cuda import Cuda
from fake_engine import Block, Engine, say
from fake_faults import Faults
from fake_http import Connection, Exchange, HttpError
from fake_pooling import CLASSIFY, EMBED, SCORE, pool

GENERATE = ("/v1/chat/completions", "/v1/completions")
# Routes of which only the way matters: what came is told back.
ECHOED = (
    "/v1/chat/completions/batch",
    "/v1/chat/completions/render",
    "/v1/chat/completions/derender",
    "/v1/completions/render",
    "/v1/completions/derender",
    "/v1/responses/render",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/messages/render",
    "/inference/v1/generate",
    "/generative_scoring",
    "/tokenize",
    "/detokenize",
    "/v2/embed",
    "/pooling",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
)


class Server:
    def __init__(self, args: dict[str, str]) -> None:
        self.args = args
        self.model = args.get("served-model-name") or args.get("model", "fake")
        self.names = served_names(sys.argv[1:]) or [self.model]
        self.folder = Path(args.get("model", "."))
        self.faults = Faults(self.model)
        self.routes = self._routes()
        self.made: dict[str, dict] = {}
        self.last: dict = {}
        self.engine: Engine

    def _routes(self) -> tuple[str, ...]:
        """Which inference routes this kind of model has."""
        try:
            config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            config = {}
        except ValueError as error:
            sys.exit(
                f"OSError: It looks like the config file at '{self.folder}' is not a valid JSON file: {error}"
            )
        self.architecture = architecture = (config.get("architectures") or [""])[0]
        if "ForSequenceClassification" in architecture:
            return SCORE + CLASSIFY
        if self.args.get("runner") == "pooling" or architecture.endswith("Model"):
            return EMBED + SCORE
        return GENERATE

    def start(self) -> None:
        """What happens before anything listens, in vLLM's words where vllama reads them."""
        say(f"INFO fake vLLM, non-default args: {self.args}")
        cuda = Cuda(self.args, self.faults)
        cuda.begin("start")
        time.sleep(self.faults("slow_start_s"))
        while self.faults("hang_at_start"):
            time.sleep(0.05)
        if self.faults("die_at_start"):
            sys.exit("RuntimeError: Engine core initialization failed. See root cause above.")
        if self.faults("core_fails"):
            say(
                "(EngineCore pid=7) ERROR [core.py:1510] EngineCore failed to start.\nValueError: a bad head size"
            )
            while True:
                signal.pause()
        if self.faults("profiling_error"):
            sys.exit(
                "AssertionError: Error in memory profiling. Initial free memory 1.0 GiB, current free memory 2.0 GiB."
            )
        if self.faults("oom_at_start"):
            sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
        if "enable-sleep-mode" in self.args and self.faults("sleep_mode_oom"):
            sys.exit(
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB (cumem_allocator)."
            )
        if self.faults("port_taken"):
            sys.exit("OSError: [Errno 98] Address already in use")
        weights = sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))
        weights = int(os.environ.get("FAKE_VLLM_WEIGHTS_BYTES", weights))
        for _ in range(int(self.faults("children"))):
            if os.fork() == 0:
                while True:
                    signal.pause()
        while self.faults("hang_loading"):
            time.sleep(0.02)
        if cuda.gpus:
            blocks = cuda.load(weights, cached="Bert" not in self.architecture)
        else:
            blocks = Block(weights), Block(int(self.args.get("kv-cache-memory-bytes") or 0))
        self.engine = Engine(self.faults, cuda, *blocks)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, lambda: None if self.faults("ignore_term") else stop.set())
        async with asyncio.TaskGroup() as tasks:
            listener = await loop.create_server(
                lambda: Connection(self.handle, tasks),
                self.args.get("host", ""),
                int(self.args.get("port", "8000")),
            )
            self.engine.cuda.end("start")
            say("INFO Application startup complete.")
            await stop.wait()
            listener.close()
            say("INFO Shutting down")
            os._exit(0)

    async def handle(self, exchange: Exchange) -> None:
        """One request, whatever becomes of it, and its line in the log."""
        try:
            await self.answer(exchange)
        except HttpError as error:
            kind = "NotFoundError" if error.status == 404 else "BadRequestError"
            body = {"message": error.message, "type": kind, "param": None, "code": error.status}
            exchange.reply(error.status, {"error": body})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            exchange.reply(400, {"error": {"message": repr(error), "type": "BadRequestError", "code": 400}})
        say(f'INFO:     127.0.0.1:1 - "{exchange.method} {exchange.path} HTTP/1.1" {exchange.status}')

    async def answer(self, exchange: Exchange) -> None:
        if exchange.path.startswith("/fake/"):
            await self.fake(exchange)
            return
        match exchange.method, exchange.path:
            case "GET", "/health":
                exchange.reply(200)
            case "GET", "/version":
                exchange.reply(200, {"version": "0.0.fake"})
            case "GET", "/metrics":
                await self.engine.scraped()
                exchange.text(
                    fake_metrics.page(self.model, self.engine, broken=bool(self.faults("broken_metrics")))
                )
            case "GET", "/v1/models":
                card = {"id": self.model, "object": "model", "owned_by": "vllm", "max_model_len": 512}
                exchange.reply(200, {"object": "list", "data": [card]})
            case "POST", path if path in self.routes:
                await self.infer(exchange)
            case "POST", path if path in ECHOED:
                with self.engine.request():
                    await self.engine.admitted()
                    exchange.reply(200, echo(exchange))
            case _, path if path.startswith("/v1/responses"):
                await self.responses(exchange)
            case "GET", "/v1/realtime" if exchange.headers.get("upgrade") == "websocket":
                with self.engine.request():
                    await self.engine.admitted()
                    await fake_realtime.serve(exchange, self.model)
            case _, path if path in self.routes:
                exchange.reply(405, {"detail": "Method Not Allowed"})
            case _:
                await self.control(exchange)

    async def responses(self, exchange: Exchange) -> None:
        """vLLM's store: in this process's memory, and gone with it."""
        _, _, rest = exchange.path.partition("/v1/responses")
        number, _, verb = rest.removeprefix("/").partition("/")
        if exchange.method == "POST" and not rest:
            with self.engine.request():
                await self.engine.admitted()
                body = exchange.json()
                made = {
                    "id": f"resp_{os.getpid()}_{len(self.made)}",
                    "model": body["model"],
                    "status": "queued",
                }
                self.made[str(made["id"])] = made
                if body.get("stream"):
                    exchange.begin()
                    exchange.send({"response": made, "sequence_number": 0, "type": "response.created"})
                    exchange.end()
                else:
                    exchange.reply(200, made)
        elif number in self.made and (exchange.method, verb) in (("GET", ""), ("POST", "cancel")):
            made = self.made[number] | ({"status": "cancelled"} if verb else {})
            exchange.reply(200, made | {"query": exchange.query})
        else:
            exchange.reply(
                404, {"error": {"message": "no such response", "type": "NotFoundError", "code": 404}}
            )

    async def control(self, exchange: Exchange) -> None:
        engine = self.engine
        match exchange.method, exchange.path:
            case "POST", "/sleep":
                level = int(exchange.query.get("level", ["1"])[0])  # query parameters only: a body is ignored
                if level not in (0, 1, 2):
                    raise HttpError(422, "level is 0, 1 or 2")
                await engine.sleep(level)
                exchange.reply(200, {"status": "sleeping", "level": level})
            case "POST", "/wake_up":
                tags = exchange.query.get("tags", [])
                exchange.reply(200, {"status": await engine.wake_up(tags), "tags": tags or None})
            case "GET", "/is_sleeping":
                exchange.reply(200, {"is_sleeping": engine.is_sleeping})
            case "POST", "/collective_rpc":
                if exchange.json().get("method") != "reload_weights":
                    raise HttpError(500, "unknown method")
                engine.reload_weights()
                exchange.reply(200, {"results": [None]})
            case "POST", "/reset_prefix_cache":
                exchange.reply(200)
            case _:
                exchange.reply(404, {"detail": "Not Found"})

    async def fake(self, exchange: Exchange) -> None:
        name = exchange.query.get("name", ["all"])[0]
        match exchange.method, exchange.path:
            case "GET", "/fake/last":
                exchange.reply(200, self.last)
            case "GET", "/fake/stats":
                exchange.reply(200, self.engine.stats())
            case "POST", "/fake/gate":
                count = exchange.query.get("tokens")
                self.engine.gates.let(name, int(count[0]) if count else None)
                exchange.reply(200)
            case "GET", "/fake/gate":
                await self.engine.gates.until_waiting(name, int(exchange.query.get("count", ["1"])[0]))
                exchange.reply(200)
            case _:
                exchange.reply(404)

    async def infer(self, exchange: Exchange) -> None:
        body = self.last = exchange.json()
        if body.get("model", self.model) not in self.names:
            raise HttpError(404, f"The model `{body['model']}` does not exist.")
        with self.engine.request():
            await self.engine.admitted()
            if exchange.path in GENERATE:
                await self.generate(exchange, body)
            else:
                await self.engine.token("")
                exchange.reply(200, pool(exchange.path, body, self.model, self.engine.salt))

    async def talk(self, exchange: Exchange, body: dict, deltas: list[dict], finish: str) -> None:
        """A chat of more than plain text."""
        base = {"id": "chatcmpl-fake", "created": int(time.time()), "model": self.model}
        usage = {"prompt_tokens": 7, "completion_tokens": len(deltas), "total_tokens": 7 + len(deltas)}
        if not body.get("stream"):
            choice = {
                "index": 0,
                "message": fake_talk.message(deltas),
                "finish_reason": finish,
                "logprobs": None,
            }
            exchange.reply(200, base | {"object": "chat.completion", "choices": [choice], "usage": usage})
            return
        base["object"] = "chat.completion.chunk"
        exchange.begin()
        for index, delta in enumerate([{"role": "assistant", "content": ""}, *deltas]):
            await self.engine.token("")
            last = finish if index == len(deltas) else None
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": last}
            exchange.send(base | {"choices": [choice]})
        if (body.get("stream_options") or {}).get("include_usage"):
            exchange.send(base | {"choices": [], "usage": usage})
        exchange.send("[DONE]")
        exchange.end()

    async def generate(self, exchange: Exchange, body: dict) -> None:
        chat = exchange.path == "/v1/chat/completions"
        if chat and (planned := fake_talk.plan(body, self.args)) is not None:
            await self.talk(exchange, body, *planned)
            return
        prompt = _chat_prompt(body["messages"]) if chat else str(body["prompt"])
        wanted = body.get("max_completion_tokens") or body.get("max_tokens") or (None if chat else 16)
        salt = self.engine.salt
        texts, finish = answers.tokens(prompt, wanted, salt, endless=bool(body.get("ignore_eos")))
        user = str(body.get("user", ""))
        gate = user.removeprefix("gate:") if user.startswith("gate:") else ""
        shown = body.get("logprobs")
        base = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-fake",
            "created": int(time.time()),
            "model": self.model,
        }
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(texts)}
        usage["total_tokens"] = sum(usage.values())
        if body.get("stream"):
            base["object"] = "chat.completion.chunk" if chat else "text_completion"
            include_usage = (body.get("stream_options") or {}).get("include_usage")
            await self.stream(exchange, base, texts, finish, gate, usage if include_usage else None)
            return
        for index in range(len(texts)):
            await self.engine.token(gate if index else "")
        choice: dict = {"index": 0, "finish_reason": finish, "logprobs": None}
        if chat:
            choice["message"] = {"role": "assistant", "content": "".join(texts)}
        else:
            choice["text"] = "".join(texts)
            if shown is not None:
                choice["logprobs"] = answers.logprobs(prompt, texts, salt, max(int(shown), 1))
        object_name = "chat.completion" if chat else "text_completion"
        exchange.reply(200, base | {"object": object_name, "choices": [choice], "usage": usage})

    async def stream(
        self, exchange: Exchange, base: dict, texts: list[str], finish: str, gate: str, usage: dict | None
    ) -> None:
        chat = base["object"].startswith("chat")
        exchange.begin()
        if chat:
            delta = {"role": "assistant", "content": ""}
            exchange.send(base | {"choices": [_delta(chat, "", None) | {"delta": delta}]})
        for index, text in enumerate(texts):
            await self.engine.token(gate if index else "")
            if index == 2 and self.faults("die_mid_stream"):
                os.kill(os.getpid(), signal.SIGKILL)
            last = finish if index == len(texts) - 1 else None
            exchange.send(base | {"choices": [_delta(chat, text, last)]})
        if usage is not None:
            exchange.send(base | {"choices": [], "usage": usage})
        exchange.send("[DONE]")
        exchange.end()


def echo(exchange: Exchange) -> dict:
    """The request as it came, its body as a length and a digest (and as JSON or a form where it is short)."""
    text = exchange.body.decode("utf-8", "replace") if len(exchange.body) < 4096 else ""
    return {
        "method": exchange.method,
        "target": exchange.target,
        "headers": exchange.headers,
        "body": text,
        "bytes": len(exchange.body),
        "sha256": hashlib.sha256(exchange.body).hexdigest(),
    }


def _chat_prompt(messages: list[dict]) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _delta(chat: bool, text: str, finish: str | None) -> dict:
    said = {"delta": {"content": text}} if chat else {"text": text}
    return {"index": 0, "logprobs": None, "finish_reason": finish} | said


if __name__ == "__main__":
    server = Server(read_arguments(sys.argv[1:]))
    server.start()
    asyncio.run(server.serve())
