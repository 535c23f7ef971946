"""`vllama assign`: edits a model's entry in models.yaml, and tells a running server. Works without one, too."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import typer

from vllama.cli import render
from vllama.cli.address import LOOPBACK
from vllama.cli.client import ANSWER_S, AnswerError, Client, ServerDownError
from vllama.cli.control import FAILED, USAGE, Json, Model, Server, open_client
from vllama.cli.folders import settings

# The flag of each key of an entry. A test holds it to ModelConfig.
FLAGS = {
    "gpu_memory_utilization": "--gpu-memory",
    "max_model_len": "--max-model-len",
    "devices": "--devices",
    "tensor_parallel_size": "--tensor-parallel-size",
    "trust_remote_code": "--trust-remote-code",
    "dtype": "--dtype",
    "extra_args": "--extra-arg",
    "sleep_level": "--sleep-level",
    "pinned": "--pinned",
    "priority": "--priority",
    "unload_timeout": "--unload-timeout",
    "unload_mode": "--unload-mode",
    "kv_cache_memory": "--kv-cache-memory",
    "engine_python": "--engine-python",
    "env": "--env",
    "revision": "--revision",
    "aliases": "--alias",
    "lora": "--lora",
}


def _option(
    *names: str, metavar: str | None = None, text: str, least: int | None = None, most: int | None = None
) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, min=least, max=most)


Devices = Annotated[str | None, _option(metavar="D", text="GPUs by number, for example 0 or 0,1.")]
GpuMemory = Annotated[
    str | None, _option(metavar="M", text="Its part of each GPU: auto, or for example 0.5.")
]
MaxModelLen = Annotated[int | None, _option(text="Context length, in tokens.", least=1)]
Ranks = Annotated[int | None, _option(text="Over how many GPUs it is split.", least=1)]
Trust = Annotated[
    bool | None, _option("--trust-remote-code/--no-trust-remote-code", text="Run the model's own code.")
]
Dtype = Annotated[str | None, _option(text="auto, bfloat16, float16, float32.")]
ExtraArg = Annotated[
    list[str] | None,
    _option(metavar="NAME=VALUE", text="A flag of vLLM; VALUE is YAML: 16, false, [a, b]. Repeatable."),
]
Alias = Annotated[list[str] | None, _option(metavar="NAME", text="Another name. Repeatable; replaces all.")]
SleepLevel = Annotated[int | None, _option(least=1, most=3, text="How deep memory pressure puts it.")]
Pinned = Annotated[bool | None, _option("--pinned/--no-pinned", text="Never evicted.")]
Priority = Annotated[
    int | None, _option(metavar="N", text="The higher, the sooner it is served and the later evicted.")
]
Timeout = Annotated[float | None, _option(metavar="SECONDS", text="How long it may be idle.")]
UnloadMode = Annotated[int | None, _option(least=1, most=3, text="How deep being idle puts it.")]
KvCache = Annotated[str | None, _option(metavar="SIZE", text="For its KV cache, for example 4GiB.")]
Python = Annotated[str | None, _option(text="Another interpreter for its engine.")]
Env = Annotated[
    list[str] | None, _option(metavar="NAME=VALUE", text="Environment of its engine. Repeatable.")
]
Revision = Annotated[
    str | None, _option(metavar="REVISION", text="The branch, tag or commit to serve, as `pull` brought it.")
]
Lora = Annotated[
    list[str] | None, _option(metavar="NAME=PATH", text="An adapter, served under its name. Repeatable.")
]
Unset = Annotated[
    list[str] | None,
    _option(metavar="KEY", text="Take a key out; extra_args.NAME takes out one. Repeatable."),
]
Restart = Annotated[bool, _option("--restart", text="Restart the model with it.")]
Show = Annotated[bool, _option("--show", text="Show what holds for the model.")]
Folder = Annotated[Path | None, _option(text="Where models.yaml is. [default: the server's, else ~/.vllama]")]


def assign(
    ctx: typer.Context,
    model: Model,
    devices: Devices = None,
    gpu_memory: GpuMemory = None,
    max_model_len: MaxModelLen = None,
    tensor_parallel_size: Ranks = None,
    trust_remote_code: Trust = None,
    dtype: Dtype = None,
    extra_arg: ExtraArg = None,
    alias: Alias = None,
    sleep_level: SleepLevel = None,
    pinned: Pinned = None,
    priority: Priority = None,
    unload_timeout: Timeout = None,
    unload_mode: UnloadMode = None,
    kv_cache_memory: KvCache = None,
    engine_python: Python = None,
    env: Env = None,
    revision: Revision = None,
    lora: Lora = None,
    unset: Unset = None,
    restart: Restart = False,
    show: Show = False,
    config_dir: Folder = None,
    server: Server = None,
    json: Json = False,
) -> None:
    """Change how a model is served: its entry in models.yaml. Holds at once, or from the engine's next start."""
    values = {key: value for key, flag in FLAGS.items() if (value := _given(flag, ctx.params)) is not None}
    if not (values or unset or show or restart):
        render.complain(
            "nothing to change: give a flag, --unset KEY or --show; `vllama assign --help` lists them"
        )
        raise typer.Exit(USAGE)
    _assign(model, values, tuple(unset or ()), restart, show, config_dir, server, json)


def _given(flag: str, params: dict[str, Any]) -> Any:
    """What a flag says, as the file would say it; None when it was not given."""
    value = params[flag.removeprefix("--").replace("-", "_")]
    if value is None or value == [] or value == ():
        return None
    match flag:
        case "--devices":
            return [_scalar(part) for part in value.split(",") if part.strip()]
        case "--gpu-memory" | "--kv-cache-memory":
            return _scalar(value)
        case "--extra-arg" | "--env" | "--lora":
            return _pairs(flag, value, yaml=flag == "--extra-arg")
        case "--alias":
            return list(value)
    return value


def _assign(
    name: str,
    values: dict[str, Any],
    unset: tuple[str, ...],
    restart: bool,
    show: bool,
    config_dir: Path | None,
    server: str | None,
    json: bool,
) -> None:
    from vllama.config import ModelConfig, load_models
    from vllama.errors import ConfigError
    from vllama.models_file import edit, put

    with open_client(server) as client:
        info = _info(client)
        path = _models_file(config_dir, info, client)
        try:
            model = _canonical(name, load_models(path), client if info else None)
            line, entry = 0, load_models(path).get(model, ModelConfig())
            if values or unset:
                line, entry = edit(path, model, lambda tree: put(tree, values, unset))
        except ConfigError as error:
            render.complain(error.message)
            raise typer.Exit(FAILED) from error
        report: dict[str, Any] = {"model": model, "file": str(path), "line": line}
        if info and (values or unset):
            report |= client.post("/control/reload", {}, ANSWER_S)
        if show:
            report["entry"] = entry.model_dump(mode="json")
        if restart and info:
            report["restarted"] = client.post("/control/restart", {"model": model})
            report["restart_needed"] = {}
        stale = report.get("restart_needed", {}).get(model, [])
        report["restart_needed"] = stale
        (render.as_json if json else render.assigned)(
            report | ({"set": sorted(entry.model_fields_set)} if show else {})
        )
        if restart and not info:
            raise ServerDownError(
                f"no vllama server answers at {client.url}: {model} is started with it later"
            )


def _info(client: Client) -> dict[str, Any] | None:
    try:
        return client.get("/control/info")
    except (
        ServerDownError,
        AnswerError,
    ):  # it may keep its control routes shut: the file is ours to edit all the same
        return None


def _models_file(given: Path | None, info: dict[str, Any] | None, client: Client) -> Path:
    """The running server's file, if it is on this machine; else where the environment says."""
    if given is not None:
        return given.expanduser().absolute() / "models.yaml"
    if info and urlsplit(client.url).hostname in LOOPBACK and "models_file" in info:
        return Path(info["models_file"]["path"])
    return settings().models_file


def _canonical(name: str, models: dict[str, Any], client: Client | None) -> str:
    """The id under which the entry stands."""
    if name in models:
        return name
    owners = [model for model, entry in models.items() if name in (*entry.aliases, *entry.lora)]
    if owners:
        return owners[0]
    if client is None:
        return name
    card = client.get(f"/v1/models/{quote(name, safe='/')}")
    return str(card.get("parent") or card["id"])


def _pairs(flag: str, given: list[str], *, yaml: bool) -> dict[str, Any]:
    found = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            render.complain(f"{flag} {pair}: write NAME=VALUE")
            raise typer.Exit(USAGE)
        found[name.strip()] = _scalar(value) if yaml else value
    return found


def _scalar(text: str) -> Any:
    """As it would be read from the file; what is no YAML is text."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
