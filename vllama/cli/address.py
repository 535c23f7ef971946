"""Where the server is and with which key it is asked: `--server`, else the settings of the server that would run here.

What is wrong with an address is said together with whose it is. The standard library only, because `vllama ps` must be quick; but
for a config.yaml, where there is one.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vllama.cli.folders import config_dir

# The same defaults as in config.py; a test holds the two together.
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 33258
PORT_MAX = 65535

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": DEFAULT_HOST}
_HOST = r"[\w.:%-]+"


@dataclass(frozen=True)
class Address:
    """A server's URL, in parts. `port` None is the scheme's own."""

    url: str
    secure: bool
    host: str
    port: int | None
    path: str


def parse(text: str, source: str) -> Address:
    """Raises ValueError that names the source for what is no URL of a server."""
    example = f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, path = parts.hostname or "", parts.path.rstrip("/")
        if re.fullmatch(_HOST, host):
            example = f"http://{f'[{host}]' if ':' in host else host}:{DEFAULT_PORT}"
            port = parts.port
            bare = "://" not in text and port is None  # port 80, where no vllama is, was hardly meant
            if parts.scheme in ("http", "https") and not bare and re.fullmatch(r"[!-~]*", path):
                url = f"{parts.scheme}://{parts.netloc}{path}"
                return Address(url, parts.scheme == "https", host, port, path)
    except ValueError:  # a port that is none, or half an IPv6 address
        pass
    raise ValueError(f"{source}: {text!r} is not the URL of a server; write for example {example}")


def find(server: str | None) -> Address:
    """That of `--server`, or that of the settings. Raises ValueError naming the one that is wrong."""
    if server:
        return parse(server, "--server")
    return parse(default_url(), "VLLAMA_URL" if os.environ.get("VLLAMA_URL") else "the settings")


def default_url(env: Mapping[str, str] | None = None) -> str:
    """Where `vllama serve` listens with the same settings. Raises ValueError naming the one that is wrong, and its source."""
    env = os.environ if env is None else env
    if url := env.get("VLLAMA_URL"):
        return url
    given = _given(env)
    host, whose = given.get("host", (DEFAULT_HOST, ""))
    host = _EVERYWHERE.get(str(host), host)
    if not isinstance(host, str) or not re.fullmatch(_HOST, host):
        raise ValueError(f"{whose}: must be a name or an address, for example {DEFAULT_HOST} (got {host!r})")
    port, whose = given.get("port", (DEFAULT_PORT, ""))
    if isinstance(port, bool) or not re.fullmatch(r"-?[0-9]{1,9}", str(port)):
        raise ValueError(f"{whose}: must be a whole number (got {port!r})")
    if not 0 <= int(port) <= PORT_MAX:
        bound = f"at most {PORT_MAX}" if int(port) > 0 else "at least 0"
        raise ValueError(f"{whose}: must be {bound} (got {port!r})")
    if int(port) == 0:
        raise ValueError(
            f"{whose}: is 0, any that is free: name the server with --server, its log says where it listens"
        )
    return f"http://{f'[{host}]' if ':' in host else host}:{int(port)}"


def _given(env: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """What is said of `host` and `port`, and by whom, in the words of config.py. Raises ValueError for a broken config.yaml."""
    found: dict[str, tuple[Any, str]] = {}
    file = config_dir(env) / "config.yaml"
    if os.path.lexists(file):
        from vllama import yamlfile
        from vllama.errors import ConfigError

        try:
            document = yamlfile.read(file, f"port: {DEFAULT_PORT}")
        except ConfigError as error:
            raise ValueError(error.message) from error
        for name in ("host", "port"):
            if name in document.tree:
                found[name] = (document.tree[name], f"{document.at((name,))}: key {name}")
    for name in ("host", "port"):
        variable = f"VLLAMA_{name.upper()}"
        if variable in env:
            found[name] = (env[variable], f"setting {name} (from {variable})")
    return found


def default_key(env: Mapping[str, str] | None = None) -> str:
    """The key to send: that of control if there is one; of several the first. "" is none. Raises ValueError, which does not
    repeat it."""
    env = os.environ if env is None else env
    name = "control_key" if env.get("VLLAMA_CONTROL_KEY") else "api_key"
    variable = f"VLLAMA_{name.upper()}"
    key = env.get(variable, "").partition(",")[0].strip()
    if not re.fullmatch(r"[!-~]*", key):
        words = "must be one key or several, each of printable ASCII without spaces"
        raise ValueError(f"setting {name} (from {variable}): {words}")
    return key
