"""Every setting, its default and its sources: flags, then `VLLAMA_*`, then `config.yaml`, then the default. And `models.yaml`,
one key a model.

A leaf: imports nothing of vllama but leaves. Every limit has its name here; units are in the names (`_s`, `_bytes`, `_max`).
"""

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
)

from vllama import yamlfile
from vllama.errors import ConfigError

T = TypeVar("T", bound=BaseModel)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_bytes(value: object) -> object:
    """Bytes from "4GiB", "4G", "512 MiB", "1.5gb" or a plain number; anything else goes on to pydantic as it is."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?\s*", value, re.IGNORECASE)
    if match is None:
        raise ValueError("must be a size: write for example 4GiB, 512MiB or 8000000000")
    number, unit, binary = match.groups()
    return int(float(number) * (_BINARY if binary and unit else _UNITS)[unit.lower()])


def _share(value: object) -> object:
    """A part of a device: said here once, where pydantic would name each half of the union."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value != "auto" and not (number and 0 < float(str(value)) <= 1):
        raise ValueError("must be auto, or a number above 0 and at most 1")
    return value


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)]


def _level(value: object) -> object:
    """The environment gives text."""
    return int(value) if isinstance(value, str) and value.strip() in ("1", "2", "3") else value


Level = Annotated[Literal[1, 2, 3], BeforeValidator(_level)]
Share = Annotated[float | Literal["auto"], BeforeValidator(_share)]


def _split(value: object) -> object:
    """Several from one string with commas, as an environment variable has them; or one."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return tuple(value) if isinstance(value, list) else value


def _keys(value: object) -> object:
    """What can stand in a header."""
    keys = _split(value)
    texts = [key.get_secret_value() if isinstance(key, SecretStr) else key for key in _tuple(keys)]
    if not all(isinstance(text, str) and re.fullmatch(r"[!-~]+", text) for text in texts):
        raise ValueError("must be one key or several, each of printable ASCII without spaces")
    return keys


def _tuple(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


Keys = Annotated[tuple[SecretStr, ...], BeforeValidator(_keys)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]


def _name(text: str) -> str:
    """An argument of vLLM's, maybe with =PATH."""
    if not re.fullmatch(r"[^\s=-][^\s=]{0,199}", text):
        raise ValueError("must be one word of at most 200 characters, without =, that does not begin with -")
    return text


Name = Annotated[str, AfterValidator(_name)]


def _revision(text: str) -> str:
    """Part of a path in the cache."""
    if not re.fullmatch(r"([A-Za-z0-9][\w./-]{0,199})?", text, re.ASCII) or ".." in text or "//" in text:
        raise ValueError("must be a branch, a tag or a commit of the hub")
    return text


Revision = Annotated[str, AfterValidator(_revision)]


def _hf_cache() -> Path:
    """Where huggingface_hub keeps models, by its own rules."""
    if hub := os.environ.get("HF_HUB_CACHE"):
        return Path(hub).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(home).expanduser() / "hub"


PRIORITY_LIMIT = 1000  # of either sign
PREFIX = "VLLAMA_"
# What begins so and is no setting: where commands find the server, whether compiled modules are used, what an engine is told.
_NO_SETTINGS = frozenset({"URL", "PURE", "RUN_DIR", "SHM_MARK", "ABSENT_MODULES"})
# What Kubernetes tells every container of a service that is named vllama.
_SERVICE = re.compile(r"SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")


class VllamaConfig(BaseModel):
    """The server's settings. Each field `x` can be given as `VLLAMA_X`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    _sources: dict[str, str] = PrivateAttr(default_factory=dict)
    _strangers: tuple[str, ...] = PrivateAttr(())

    host: str = "127.0.0.1"
    port: int = Field(33258, ge=0, le=65535)
    ollama_port: int | None = Field(
        None, ge=0, le=65535
    )  # listen there too: 11434 is where Ollama's clients look
    vllm_port_start: int = Field(33300, ge=1, le=65535)
    vllm_port_end: int = Field(34300, ge=1, le=65535)
    unload_timeout: float = Field(1800, gt=0)
    unload_mode: Level = 2
    config_dir: Path = Field(default_factory=lambda: Path("~/.vllama").expanduser())
    transformers_cache: Path = Field(default_factory=_hf_cache)

    api_key: Keys = Field((), repr=False)  # guards every route but /health and the page's files
    api_key_file: Path | None = None  # one key a line
    control_key: Keys = Field((), repr=False)  # control and debug want this one instead
    control_key_file: Path | None = None
    control_hosts: Names = ()  # names of this machine that a control request may ask for, besides its own
    cors_origins: Names = ()  # pages of these may use the data routes; "*" means any

    memory_limit: Bytes | None = None
    engine_start: Literal["auto", "fork", "exec"] = "auto"
    engine_python: str = ""
    engine_entry: str = ""
    sleep_level: Level = 2
    sleep_ram_max_bytes: Bytes | None = None  # of the host, for level-1 sleepers of GPUs; unset: half of it
    kv_default_max: Bytes = 2**28

    policy: Literal["cost", "lru"] = "cost"  # who goes when memory is short, and who is next
    workers: int = Field(1, ge=1, le=64)  # processes that serve requests; 1: this one, and no other
    worker_answer_s: float = Field(10, gt=0)  # one that does not give tickets back for so long is killed
    queue_max: int = Field(1024, ge=1)
    priority_max: int = Field(0, ge=-PRIORITY_LIMIT, le=PRIORITY_LIMIT)  # what a request may ask for itself
    mailbox_max: int = Field(4096, ge=1)
    body_bytes_max: Bytes = 2**30
    head_bytes_max: Bytes = 2**16  # of a request
    head_timeout_s: float = Field(
        30, gt=0
    )  # a client that has connected, or begun a request, has so long for its head
    body_timeout_s: float = Field(60, gt=0)  # and so long for each next piece of its body
    wait_timeout_s: float = Field(600, gt=0)
    max_wait_s: float = Field(60, gt=0)
    busy_grace_s: float = Field(10, ge=0)
    drain_timeout_s: float | None = None
    memory_return_timeout_s: float = Field(10, gt=0)
    stop_timeout_s: float = Field(6 * 3600, gt=0)
    pin_idle_s: float = Field(5, gt=0)  # idle for so long, a level-1 model sleeps and wakes once
    residue_growth_max_bytes: Bytes = (
        2**30
    )  # a sleeper that holds so much more than at first is stopped next time
    wake_misses_max: int = Field(2, ge=1)  # failed wakes from a level after which it is not used any more
    stop_grace_s: float = Field(10, ge=0)
    shutdown_timeout_s: float = Field(30, ge=0)
    start_timeout_s: float = Field(1800, gt=0)
    start_quiet_s: float = Field(300, gt=0)
    wake_timeout_s: float = Field(30, gt=0)
    restarts_max: int = Field(3, ge=1)
    restarts_period_s: float = Field(600, gt=0)
    backoff_s: float = Field(1, ge=0)
    backoff_max_s: float = Field(60, ge=0)

    journal_lifecycle_max: int = Field(50_000, ge=100)
    journal_requests_max: int = Field(10_000, ge=100)
    log_max_bytes: Bytes = 2**26
    metrics_timeout_s: float = Field(2, gt=0)  # how long GET /metrics waits for the engines' own figures
    otel_endpoint: str = (
        ""  # spans go to /v1/traces there (OTLP over HTTP); else where OTEL_EXPORTER_OTLP_ENDPOINT says
    )

    @property
    def sources(self) -> dict[str, str]:
        """Where each setting came from: a flag, an environment variable, FILE:LINE or "default"."""
        return {name: self._sources.get(name, "default") for name in VllamaConfig.model_fields}

    @property
    def strangers(self) -> tuple[str, ...]:
        """Variables of the environment that look like settings and are none, each with what may have been meant."""
        return self._strangers

    @property
    def models_file(self) -> Path:
        return self.config_dir / "models.yaml"

    @property
    def footprints_file(self) -> Path:
        return self.config_dir / "footprints.json"

    @property
    def logs_dir(self) -> Path:
        return self.config_dir / "logs"


class ModelConfig(BaseModel):
    """One model's entry of `models.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu_memory_utilization: Share = "auto"
    max_model_len: int | None = Field(None, ge=1)
    devices: tuple[int, ...] = ()
    tensor_parallel_size: int = Field(1, ge=1)
    trust_remote_code: bool = False
    dtype: str = "auto"
    extra_args: dict[str, Any] = Field(default_factory=dict)
    sleep_level: Literal[1, 2, 3] | None = None
    pinned: bool = False
    priority: int = Field(0, ge=-PRIORITY_LIMIT, le=PRIORITY_LIMIT)  # higher: sooner served, later evicted
    unload_timeout: float | None = Field(None, gt=0)
    unload_mode: Literal[1, 2, 3] | None = None
    kv_cache_memory: Bytes | None = None
    engine_python: str = ""
    env: dict[str, str] = Field(default_factory=dict)
    revision: Revision = ""  # of the hub; "": main
    aliases: tuple[Name, ...] = ()
    lora: dict[Name, str] = Field(default_factory=dict)  # adapter's name -> its folder or repository


def load_config(
    flags: Mapping[str, object] | None = None, env: Mapping[str, str] | None = None
) -> VllamaConfig:
    """The settings from flags (None means not given), `VLLAMA_*`, `config_dir/config.yaml`, defaults. Raises ConfigError."""
    env = os.environ if env is None else env
    flags = {name: value for name, value in (flags or {}).items() if value is not None}
    names = VllamaConfig.model_fields
    from_env = {name: env[key] for name in names if (key := f"{PREFIX}{name.upper()}") in env}
    folder = Path(str(flags.get("config_dir") or from_env.get("config_dir") or "~/.vllama")).expanduser()
    document = yamlfile.read(folder / "config.yaml", "port: 33258")
    from_file = _settings_of(document)
    sources = {
        **{name: document.at((name,)) for name in from_file},
        **{name: f"{PREFIX}{name.upper()}" for name in from_env},
        **{name: _flag(name) for name in flags},
    }
    try:
        config = VllamaConfig.model_validate({**from_file, **from_env, **flags})
    except ValidationError as error:
        parts = [
            f"setting {'.'.join(map(str, place))} (from {sources.get(str(place[0]), '?')}): {words}"
            for place, words in yamlfile.findings(error)
        ]
        raise ConfigError("; ".join(parts)) from error
    if config.vllm_port_end < config.vllm_port_start:
        said = " and ".join(
            f"{name} {getattr(config, name)} (from {sources.get(name, 'default')})"
            for name in ("vllm_port_start", "vllm_port_end")
        )
        raise ConfigError(f"settings {said} leave no port for engines: the end is below the start")
    paths = ("config_dir", "transformers_cache")
    config = config.model_copy(update={name: getattr(config, name).expanduser().absolute() for name in paths})
    config._sources = sources  # noqa: SLF001 - pydantic's private attributes are set from outside of __init__
    config._strangers = tuple(_strangers_in(env))  # noqa: SLF001
    return config


def _strangers_in(env: Mapping[str, str]) -> Iterator[str]:
    """Never with their values, which may be secrets."""
    settings = [name.upper() for name in VllamaConfig.model_fields]
    for variable in sorted(env):
        name = variable.removeprefix(PREFIX)
        if name == variable or name in settings or name in _NO_SETTINGS or _SERVICE.fullmatch(name):
            continue
        near = difflib.get_close_matches(name.upper(), [*settings, "URL"], n=1)
        hint = (
            f"did you mean {PREFIX}{near[0]}?" if near else "docs/configuration.md lists those that there are"
        )
        yield f"{variable} is no setting and changes nothing: {hint}"


def _flag(name: str) -> str:
    """As `vllama serve` calls it."""
    return f"--{name.removesuffix('_s').replace('_', '-')}"


def _settings_of(document: yamlfile.Document) -> dict[str, object]:
    """What `config.yaml` sets, each value of its right type. Raises ConfigError."""
    if "config_dir" in document.tree:
        where = document.at(("config_dir",))
        raise ConfigError(f"{where}: key config_dir: this file is found by it; use --config-dir")
    checked = _checked(VllamaConfig, document, (), document.tree)
    return {name: getattr(checked, name) for name in checked.model_fields_set}


def load_models(path: Path) -> dict[str, ModelConfig]:
    """The entries of `models.yaml`; an absent file is empty. Raises ConfigError naming file, line and key."""
    return models_of(yamlfile.read(path, "Qwen/Qwen3-0.6B:"))


def revisions_of(models: Mapping[str, ModelConfig]) -> dict[str, str]:
    """The models of which another revision than main is served."""
    return {model: entry.revision for model, entry in models.items() if entry.revision}


def models_of(document: yamlfile.Document) -> dict[str, ModelConfig]:
    """The same of a file that is read already. No name means two models."""
    models: dict[str, ModelConfig] = {}
    for name, entry in document.tree.items():
        models[name] = _checked(ModelConfig, document, (name,), {} if entry is None else entry)
    owners = dict.fromkeys(models, "")
    for model, entry in models.items():
        for key, given in (("aliases", entry.aliases), ("lora", tuple(entry.lora))):
            for name in given:
                if (owner := owners.get(name)) is not None:
                    where = document.at((model, key, name))
                    other = f"is another name of {owner} already" if owner else "is a model of its own"
                    raise ConfigError(f"{where}: model {model}: key {key}: {name} {other}; choose another")
                owners[name] = model
    return models


def _checked(kind: type[T], document: yamlfile.Document, above: tuple[str, ...], entry: object) -> T:
    """A part of a file as settings. Strict: a number in quotes is no number."""
    of = f"model {above[0]}: " if above else ""
    if not isinstance(entry, dict):
        raise ConfigError(f"{document.at(above)}: {of}must be a mapping (`key: value` lines, indented)")
    try:
        return kind.model_validate_json(json.dumps(entry, default=str), strict=True)
    except TypeError as error:
        raise ConfigError(f"{document.at(above)}: {of}every key must be text; quote it") from error
    except ValidationError as error:
        parts = []
        for place, words in yamlfile.findings(error):
            near = difflib.get_close_matches(str(place[0]), kind.model_fields, n=1)
            hint = f"; did you mean {near[0]}?" if words == "is unknown" and near else ""
            keys = ".".join(map(str, place))
            parts.append(f"{document.at((*above, *map(str, place)))}: {of}key {keys}: {words}{hint}")
        raise ConfigError("; ".join(parts)) from error
