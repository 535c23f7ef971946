"""Every setting, its default and its sources: flags, then `VLLAMA_*`, then the default. And `models.yaml`, one key a model.

A leaf: imports nothing of vllama but errors. Every limit has its name here; units are in the names (`_s`, `_bytes`, `_max`).
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vllama.errors import ConfigError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_bytes(value: object) -> object:
    """Bytes from "4GiB", "4G", "512 MiB", "1.5gb" or a plain number; anything else goes on to pydantic as it is."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?\s*", value, re.IGNORECASE)
    if match is None:
        raise ValueError(f"{value!r} is not a size: write for example 4GiB, 512MiB or 8000000000")
    number, unit, binary = match.groups()
    return int(float(number) * (_BINARY if binary and unit else _UNITS)[unit.lower()])


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)]


def _hf_cache() -> Path:
    """Where huggingface_hub keeps models, by its own rules."""
    if hub := os.environ.get("HF_HUB_CACHE"):
        return Path(hub).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(home).expanduser() / "hub"


class VllamaConfig(BaseModel):
    """The server's settings. Each field `x` can be given as `VLLAMA_X`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(33258, ge=0, le=65535)
    vllm_port_start: int = Field(33300, ge=1, le=65535)
    vllm_port_end: int = Field(34300, ge=1, le=65535)
    unload_timeout: float = Field(1800, gt=0)
    unload_mode: Literal[1, 2, 3] = 2
    config_dir: Path = Field(default_factory=lambda: Path("~/.vllama").expanduser())
    transformers_cache: Path = Field(default_factory=_hf_cache)

    memory_limit: Bytes | None = None
    engine_start: Literal["auto", "fork", "exec"] = "auto"
    engine_python: str = ""
    engine_entry: str = ""
    sleep_level: Literal[1, 2, 3] = 2
    kv_default_max: Bytes = 2**28

    queue_max: int = Field(1024, ge=1)
    mailbox_max: int = Field(4096, ge=1)
    body_bytes_max: Bytes = 2**30
    wait_timeout_s: float = Field(600, gt=0)
    max_wait_s: float = Field(60, gt=0)
    busy_grace_s: float = Field(10, ge=0)
    drain_timeout_s: float | None = None
    memory_return_timeout_s: float = Field(10, gt=0)
    stop_timeout_s: float = Field(6 * 3600, gt=0)
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

    @property
    def models_file(self) -> Path:
        return self.config_dir / "models.yaml"

    @property
    def logs_dir(self) -> Path:
        return self.config_dir / "logs"


class ModelConfig(BaseModel):
    """One model's entry of `models.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu_memory_utilization: float | Literal["auto"] = "auto"
    max_model_len: int | None = Field(None, ge=1)
    devices: tuple[int, ...] = ()
    tensor_parallel_size: int = Field(1, ge=1)
    trust_remote_code: bool = False
    dtype: str = "auto"
    extra_args: dict[str, Any] = Field(default_factory=dict)
    sleep_level: Literal[1, 2, 3] | None = None
    pinned: bool = False
    unload_timeout: float | None = Field(None, gt=0)
    kv_cache_memory: Bytes | None = None
    engine_python: str = ""
    env: dict[str, str] = Field(default_factory=dict)


def load_config(flags: Mapping[str, object] | None = None, env: Mapping[str, str] | None = None) -> VllamaConfig:
    """The settings from flags (None means not given), then `VLLAMA_*`, then defaults. Raises ConfigError."""
    env = os.environ if env is None else env
    values: dict[str, object] = {
        name: env[key] for name in VllamaConfig.model_fields if (key := f"VLLAMA_{name.upper()}") in env
    }
    values |= {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        config = VllamaConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, values, "setting")) from error
    if config.vllm_port_end < config.vllm_port_start:
        raise ConfigError("vllm_port_end is below vllm_port_start: no port is left for engines")
    return config.model_copy(update={
        name: getattr(config, name).expanduser().absolute() for name in ("config_dir", "transformers_cache")
    })


def load_models(path: Path) -> dict[str, ModelConfig]:
    """The entries of `models.yaml`; an absent file is empty. Raises ConfigError naming file, line and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected one key per model, for example 'Qwen/Qwen3-0.6B:'")
    models = {}
    for name, entry in tree.items():
        try:
            models[str(name)] = ModelConfig.model_validate(entry or {})
        except ValidationError as error:
            raise ConfigError(f"{path}: model {name}: {_explain(error, entry, 'key')}") from error
    return models


def _explain(error: ValidationError, values: object, noun: str) -> str:
    """Pydantic's findings in one line each, without its links and internals."""
    lines = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"])
        lines.append(f"{noun} {where}: {item['msg']}" if where else f"{item['msg']} (got {values!r})")
    return "; ".join(lines)
