"""Where the command line keeps what is its own, and the settings that a server here would have."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllama.config import VllamaConfig

DEFAULT_DIR = "~/.vllama"


def config_dir(env: Mapping[str, str] | None = None) -> Path:
    """`VLLAMA_CONFIG_DIR`, else the default, by the rule of config.py, which costs too much to import; a test holds the two
    together."""
    env = os.environ if env is None else env
    return Path(env.get("VLLAMA_CONFIG_DIR") or DEFAULT_DIR).expanduser().absolute()


def settings(env: Mapping[str, str] | None = None) -> "VllamaConfig":
    """The settings of a server with this environment. Raises ValueError, a usage error, naming the one that is wrong."""
    from vllama.config import load_config
    from vllama.errors import ConfigError

    try:
        return load_config(env=env)
    except ConfigError as error:
        raise ValueError(error.message) from error
