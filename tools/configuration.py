"""docs/configuration.md, written from the models of vllama/config.py: every setting, its bounds and default, what it does.

What a setting does is the comment beside it in config.py, or its entry in WORDS below where there is more to say. A setting with
neither is an error. `tests/test_docs.py` holds the page up to date; this writes it:  .venv/bin/python tools/configuration.py
"""

import ast
import inspect
import io
import sys
import tokenize
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from vllama.cli import assign, serve
from vllama.config import ModelConfig, VllamaConfig

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
OF_THE_MACHINE = {"config_dir": "`~/.vllama`", "transformers_cache": "Hugging Face's own"}

GROUPS = {
    "host": "Where it listens, and where things are",
    "api_key": "Who may ask",
    "memory_limit": "Memory and engines",
    "queue_max": "Waiting, moving, failing",
    "journal_lifecycle_max": "Records and figures",
}

WORDS = {
    "host": "The address to listen on. Beyond loopback the control routes are off unless a key is set.",
    "port": "The port to listen on; 0 takes any that is free.",
    "vllm_port_start": "The first of the ports that engines listen on, on 127.0.0.1.",
    "vllm_port_end": "The last of them.",
    "unload_timeout": "Seconds without a request after which a model sleeps.",
    "unload_mode": "How deep an idle model sleeps: 1 keeps the weights in RAM, 2 reads them again, 3 stops the engine.",
    "config_dir": "The folder of `config.yaml`, `models.yaml`, `footprints.json` and the engines' logs.",
    "transformers_cache": "The Hugging Face cache whose models are served.",
    "api_key": "One key or several, with commas between them: every route but `/health` and the page's files wants "
    "one, as `Authorization: Bearer KEY` or `X-Api-Key`.",
    "api_key_file": "A file with such keys, one a line; lines that begin with # are comments.",
    "control_key": "`/control`, `/debug` and `/metrics` want this one instead; it opens everything else too.",
    "control_key_file": "A file with such keys.",
    "control_hosts": "Further names of this machine: a control request must ask for an address, localhost, the machine's name "
    "or one of these.",
    "memory_limit": "What engines may take of each device; unset: all there is.",
    "engine_start": "`fork` from the process that has vLLM loaded already, `exec` plainly, `auto`: what works.",
    "engine_python": "The Python whose vLLM engines run in; unset: vllama's own.",
    "engine_entry": "A script to run instead of vLLM's server; for tests.",
    "sleep_level": "How deep an evicted model sleeps; on GPUs without room for the weights in RAM, level 2 instead of 1.",
    "sleep_ram_max_bytes": "What level-1 sleepers of GPUs may take of the host's RAM; unset: half of it.",
    "kv_default_max": "How large a model's KV cache is made at most when nothing is said of its length or size.",
    "queue_max": "Requests that may wait for one model; the next one gets 429.",
    "mailbox_max": "Messages that may wait for one model's actor; the next request gets 429.",
    "body_bytes_max": "The largest body of a request; a larger one gets 413.",
    "wait_timeout_s": "How long a request may wait for memory; then 503, which names who holds what.",
    "max_wait_s": "How long the first in the queue for memory may be overtaken by those whose need is free already.",
    "busy_grace_s": "How long a model with requests in flight is spared when only such ones could make room.",
    "drain_timeout_s": "How long a model on its way down waits for its requests before it cuts them off; unset: as long as "
    "they take.",
    "memory_return_timeout_s": "How long memory that was given back may take to be measured free, before the rest is booked as "
    "unreturned.",
    "stop_timeout_s": "How long a model sleeps before its engine is stopped.",
    "stop_grace_s": "How long an engine may take to end by itself before it is killed.",
    "shutdown_timeout_s": "How long what runs may take to finish when vllama is told to end.",
    "start_timeout_s": "How long a start may take.",
    "start_quiet_s": "How long a start may go without a line in its log and without using a processor.",
    "wake_timeout_s": "How long a wake or a sleep may take, and a second more for each 0.2 GB.",
    "restarts_max": "Failures within `restarts_period_s` after which a model is `failed` until somebody starts it.",
    "restarts_period_s": "The period in which failures are counted.",
    "backoff_s": "How long after a failure the next start waits; doubled by each further one.",
    "backoff_max_s": "The longest such wait.",
    "journal_lifecycle_max": "Records of models' lives that the journal keeps.",
    "journal_requests_max": "Records of requests that it keeps.",
    "log_max_bytes": "An engine's log that grows beyond is cut, its latest part kept.",
    "metrics_timeout_s": "How long `GET /metrics` waits for the engines' own figures.",
    "otel_endpoint": "Where spans go, by OTLP over HTTP: `/v1/traces` below this URL; unset: where OpenTelemetry's own "
    "variables say.",
}

MODEL_WORDS = {
    "gpu_memory_utilization": "The share of each GPU that the engine may take; `auto`: computed, then measured.",
    "max_model_len": "The longest context, in tokens; unset: what fits.",
    "devices": "The GPUs to use, by `nvidia-smi`'s numbers; unset: where the least must go.",
    "tensor_parallel_size": "How many GPUs the model is spread over.",
    "trust_remote_code": "Whether code that comes with the model may run.",
    "dtype": "The numbers' type, in vLLM's words.",
    "extra_args": "Any further argument of vLLM's: `name: value`; true for a flag.",
    "sleep_level": "As the server's setting, for this model.",
    "pinned": "It is never evicted for another, nor stopped for one while it sleeps. Commands and being idle move it as "
    "any other.",
    "unload_timeout": "As the server's setting, for this model.",
    "unload_mode": "As the server's setting, for this model.",
    "kv_cache_memory": "The size of the KV cache.",
    "engine_python": "The Python whose vLLM this model's engine runs in.",
    "env": "Environment variables of the engine. Their values are neither logged nor shown.",
    "revision": "The branch, tag or commit that is served, once `vllama pull MODEL --revision ...` has brought it; unset: main.",
    "aliases": "Further names for the model.",
    "lora": "Adapters: a name, and the folder or repository that it stands for. Each is a model of that name.",
}

HEAD = """\
# Configuration

<!-- Written by tools/configuration.py from vllama/config.py; do not edit. -->

A setting is an option of `vllama serve` (the common ones), an environment variable `VLLAMA_NAME`, or a key of `config.yaml` in
the configuration folder: the first of these that says something wins, and `vllama info` shows which did. What is wrong is refused
at the start, with its file, line and key; a variable `VLLAMA_...` that is no setting changes nothing, and is named in the
server's log, by `vllama info` and `vllama doctor`. Sizes are written `4GiB`, `512MiB` or in bytes; several names or keys
with commas between them.

```yaml
# ~/.vllama/config.yaml
port: 33258
memory_limit: 60GiB
unload_timeout: 600
```
"""

MODELS_HEAD = """
## One model's entry of models.yaml

Under the model's name, by hand or by `vllama assign MODEL`. A running server takes a change over within a second, and says which
engines need `vllama restart` for it; [commands](../design/commands.md#assign) has which do.

```yaml
# ~/.vllama/models.yaml
Qwen/Qwen3-0.6B:
  max_model_len: 8192
  aliases: [small]
  lora: {sql: /adapters/sql}
  extra_args: {enable-prefix-caching: true}
```
"""


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


def page() -> str:
    """The whole page."""
    server = "\n".join(_server_rows())
    models = "\n".join(_model_rows())
    return f"{HEAD}{server}\n{MODELS_HEAD}\n{models}\n"


def _server_rows() -> Iterator[str]:
    comments = comments_of(VllamaConfig)
    options = set(inspect.signature(serve.serve).parameters)
    for name, field in VllamaConfig.model_fields.items():
        if name in GROUPS:
            yield f"\n## {GROUPS[name]}\n\n| setting | values | default | what it does |\n|---|---|---|---|"
        words = WORDS.get(name) or comments.get(name)
        if not words:
            raise SystemExit(
                f"{name} of VllamaConfig has no words: write a comment beside it in vllama/config.py"
            )
        flag = " (and an option)" if name in options else ""
        yield f"| `{name}`{flag} | {values(field)} | {default(name, field)} | {_sentence(words)} |"


def _model_rows() -> Iterator[str]:
    comments = comments_of(ModelConfig)
    yield "| key | of `assign` | values | default | what it does |\n|---|---|---|---|---|"
    for name, field in ModelConfig.model_fields.items():
        words = MODEL_WORDS.get(name) or comments.get(name)
        if not words:
            raise SystemExit(
                f"{name} of ModelConfig has no words: write a comment beside it in vllama/config.py"
            )
        flag = assign.FLAGS.get(name)
        shown = f"`{flag}`" if flag else "-"
        yield f"| `{name}` | {shown} | {values(field)} | {default(name, field)} | {_sentence(words)} |"


def _sentence(words: str) -> str:
    words = words[0].upper() + words[1:] if words[0].isascii() else words
    return (words if words.endswith(".") else words + ".").replace("|", r"\|")


def comments_of(model: type[BaseModel]) -> dict[str, str]:
    """The comment on the lines of each field."""
    source = inspect.getsource(model)
    found = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    words = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 2)
            # A formatter may have put a closing bracket, and with it the comment, on a line of its own.
            last = (node.end_lineno or node.lineno) + 1
            text = source.splitlines()[last - 1].strip() if last <= len(source.splitlines()) else ""
            said = [found[n] for n in lines if n in found and (n < last or text.startswith(")"))]
            if said:
                words[node.target.id] = " ".join(said)
    return words


def values(field: FieldInfo) -> str:
    """What may be given."""
    kind, bounds = _kind(field.annotation, field.metadata), []
    for rule in field.metadata:
        match rule:
            case annotated_types.Ge(ge=least) if kind != "a size":
                bounds.append(f"at least {least}")
            case annotated_types.Gt(gt=above):
                bounds.append(f"above {above}")
            case annotated_types.Le(le=most):
                bounds.append(f"at most {most}")
    return " ".join([kind, ", ".join(bounds)]).strip()


def _kind(annotation: Any, metadata: list[Any]) -> str:
    names = {getattr(getattr(rule, "func", None), "__name__", "") for rule in metadata}
    for function, words in {
        "parse_bytes": "a size",
        "_level": "1, 2 or 3",
        "_share": "`auto`, or above 0, at most 1",
    }.items():
        if function in names:
            return words
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _kind(args[0], [*args[1:], *metadata])
    if origin in (typing.Union, types.UnionType):
        return _kind(next(arg for arg in args if arg is not type(None)), metadata)
    if origin is Literal:
        return ", ".join(f"`{arg}`" if isinstance(arg, str) else str(arg) for arg in args)
    if origin is tuple:
        return {SecretStr: "keys", int: "numbers"}.get(args[0], "names")
    if origin is dict:
        return "a mapping"
    return {int: "a number", float: "a number", str: "text", bool: "`true`, `false`", Path: "a path"}.get(
        annotation, "text"
    )


def default(name: str, field: FieldInfo) -> str:
    if name in OF_THE_MACHINE:
        return OF_THE_MACHINE[name]
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", (), {}):
        return "unset" if value is None or value == "" else "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if values(field).startswith("a size"):
        return f"`{_size(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _size(value: int) -> str:
    unit = 0
    while value % 1024 == 0 and value and unit < len(UNITS) - 1:
        value, unit = value // 1024, unit + 1
    return f"{value}{UNITS[unit]}"


if __name__ == "__main__":
    sys.exit(main())
