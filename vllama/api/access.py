"""Who may ask what: keys, origins, hosts. It stands before every route and knows only two kinds: data, and control with debug.

What a web page can do without anybody's leave is the danger here: post a form to us, rebind its own name to our address,
open a websocket. So control demands a Host that is ours and no foreign Origin, whatever the keys are.
"""

import hashlib
import hmac
import ipaddress
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from vllama.api.answers import plain_answer, shaped
from vllama.api.page import is_led_here, is_page, page_off
from vllama.config import VllamaConfig
from vllama.errors import ConfigError, cited

OPEN_PATH = "/health"
EXPOSED_HEADERS = ("X-Request-Id", "X-Vllama-State", "X-Vllama-Wait-Ms", "Retry-After")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keys:
    """Digests of the keys, so that none can be printed. No `data` key: data is open. Whoever may control may also ask."""

    data: tuple[bytes, ...] = ()
    control: tuple[bytes, ...] = ()

    def opens(self, given: Sequence[str], *, control: bool) -> bool:
        """Whether one of the given keys fits. Every pair is compared, each in constant time."""
        wanted = (self.control or self.data) if control else (self.data and self.data + self.control)
        if not wanted:
            return True
        fits = [hmac.compare_digest(_digest(key), each) for key in given for each in wanted]
        return any(fits)


def read_keys(config: VllamaConfig) -> Keys:
    """The keys of the settings and of the files that they name. Raises ConfigError."""
    return Keys(
        _digests(config.api_key, "api_key_file", config.api_key_file),
        _digests(config.control_key, "control_key_file", config.control_key_file),
    )


def _digests(keys: Sequence[SecretStr], setting: str, file: Path | None) -> tuple[bytes, ...]:
    texts = [key.get_secret_value() for key in keys]
    if file is not None:
        try:
            lines = file.expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{setting}: {file} cannot be read: {error}") from error
        found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not found:
            raise ConfigError(f"{setting}: {file} has no key in it; write one on each line")
        texts += found
    return tuple(_digest(text) for text in texts)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach what listens there. An address, not a name."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def warn_if_exposed(address: str, keys: Keys) -> bool:
    """Whether control and debug must be off: others can reach us, and no key would stop them. Says so, loudly."""
    if is_loopback(address):
        return False
    off = not (keys.data or keys.control)
    if not keys.data:
        log.warning(
            "!!! vllama listens on %s WITHOUT an api_key: whoever reaches it may use every model.%s Set VLLAMA_API_KEY "
            "(or api_key, api_key_file), or listen on 127.0.0.1. !!!",
            address,
            " Control and debug routes are switched off." if off else "",
        )
    return off


# What of Ollama's API changes which models there are.
_CHANGING = ("/api/pull", "/api/delete", "/api/copy", "/api/create", "/api/push", "/api/blobs")


def is_control(path: str) -> bool:
    """Whether a path is for operators: `/control...`, `/debug...`, `/metrics`, and what changes something among Ollama's."""
    return path.startswith(("/control", "/debug", *_CHANGING)) or path == "/metrics"


class Cors:
    """CORS as configured, for data alone: no other site's page may control this server, whatever is configured."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._cors = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        control = is_control(scope.get("path", ""))
        await (self._app if control else self._cors)(scope, receive, send)


class Access:
    """Lets a request through, or answers it."""

    def __init__(self, app: ASGIApp, config: VllamaConfig, keys: Keys, *, control_off: bool) -> None:
        self._app = app
        self._keys = keys
        self._control_off = control_off
        self._hosts = {
            name.lower() for name in (config.host, socket.gethostname(), "localhost", *config.control_hosts)
        }
        self._origins = frozenset(config.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None if scope["type"] == "lifespan" else self._refusal(scope)
        if refusal is not None:
            refusal = shaped(scope["path"], refusal)
        await (self._app if refusal is None else refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        path: str = scope["path"]
        if path == OPEN_PATH:
            return None
        if is_page(path):
            return page_off() if self._control_off else None
        if is_led_here(scope):
            return None
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        control = is_control(path)
        if control and self._control_off:
            return plain_answer(
                403,
                "Control and debug routes are off: this server listens beyond loopback without a key. "
                "Set VLLAMA_API_KEY for it and for the command line.",
                "control_disabled",
            )
        if not self._keys.opens(_given(headers), control=control):
            return _unauthorized(control=control and bool(self._keys.control))
        if control or scope["type"] == "websocket":
            return self._foreign(headers, control=control)
        return None

    def _foreign(self, headers: Sequence[tuple[bytes, bytes]], *, control: bool) -> JSONResponse | None:
        """A browser says for which name it asks and which page made it ask."""
        hosts, origins = _values(headers, b"host"), _values(headers, b"origin")
        if control and (len(hosts) != 1 or not self._ours(hosts[0])):
            named = cited(", ".join(hosts)) or "no Host"
            return plain_answer(
                403,
                f"Control requests must name this machine, not {named}; add the name to control_hosts if it is this one.",
                "forbidden",
            )
        for origin in origins:
            allowed = not control and (origin in self._origins or "*" in self._origins)
            if not allowed and [_netloc(origin)] != hosts:
                return plain_answer(403, f"Pages of {cited(origin)} may not do this.", "forbidden")
        return None

    def _ours(self, host: str) -> bool:
        """A name that a page elsewhere cannot point at us: an address, localhost, this machine's name, a configured one."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return name in self._hosts or name.endswith(".localhost")
        return True


def _values(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def _given(headers: Sequence[tuple[bytes, bytes]]) -> list[str]:
    """The keys of a request: OpenAI's header, and Anthropic's for /v1/messages."""
    bearers = [value.partition(" ") for value in _values(headers, b"authorization")]
    keys = [key.strip() for scheme, _, key in bearers if scheme.lower() == "bearer"]
    return keys + _values(headers, b"x-api-key")


def _unauthorized(*, control: bool) -> JSONResponse:
    wanted, variable = ("a control key", "VLLAMA_CONTROL_KEY") if control else ("a key", "VLLAMA_API_KEY")
    answer = plain_answer(
        401,
        f"This needs {wanted} of this server: send it as `Authorization: Bearer KEY` (`vllama` sends {variable}).",
        "invalid_api_key",
    )
    answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def options_of(routes: Sequence[BaseRoute], scope: Scope) -> frozenset[str]:
    """The methods that a path takes; none when it is no path of ours."""
    found: set[str] = set()
    for route in routes:
        matched, _ = route.matches(scope)
        if matched.value:
            found |= set(getattr(route, "methods", None) or ())
    return frozenset(found)
