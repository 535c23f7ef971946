"""Where the command line keeps what is its own, by the rule of config.py, which costs too much to import."""

import os
from pathlib import Path

DEFAULT_DIR = "~/.vllama"


def config_dir() -> Path:
    """`VLLAMA_CONFIG_DIR`, else the default; a test holds it to config.py."""
    return Path(os.environ.get("VLLAMA_CONFIG_DIR") or DEFAULT_DIR).expanduser().absolute()
