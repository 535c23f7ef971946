"""The CLI's HTTP client: the standard library only, because `vllama ps` must be quick. Waits as long as a start takes."""

import http.client
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

# The same defaults as in config.py, which costs a second to import; a test holds the two together.
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 33258
CONNECT_TIMEOUT_S = 5.0

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": DEFAULT_HOST}


class ServerDownError(Exception):
    """Nobody answers at the URL."""


class AnswerError(Exception):
    """The server said no: its own words, and its code."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class ServerEvent:
    """One event of the server's journal."""

    kind: str
    data: Mapping[str, Any]


def default_url(env: Mapping[str, str] | None = None) -> str:
    """Where `vllama serve` listens with the same environment."""
    env = os.environ if env is None else env
    if url := env.get("VLLAMA_URL"):
        return url
    host = env.get("VLLAMA_HOST", DEFAULT_HOST)
    host = _EVERYWHERE.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{env.get('VLLAMA_PORT', DEFAULT_PORT)}"


def default_key(env: Mapping[str, str] | None = None) -> str:
    """The key to send: that of control if there is one; of several the first. "" is none."""
    env = os.environ if env is None else env
    keys = env.get("VLLAMA_CONTROL_KEY") or env.get("VLLAMA_API_KEY") or ""
    return keys.partition(",")[0].strip()


class Client:
    """One server, by its URL. Raises ValueError for what is no URL."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self._key = default_key() if key is None else key
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"{url!r} is not the URL of a server; write for example http://127.0.0.1:{DEFAULT_PORT}"
            )
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._path = parts.path.rstrip("/")

    def get(self, path: str) -> dict[str, Any]:
        """The JSON answer. Raises ServerDownError, AnswerError."""
        return self._json("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON answer, however long it takes. Raises ServerDownError, AnswerError."""
        return self._json("POST", path, json.dumps(body).encode())

    def events(self, model: str) -> "EventReader":
        """The model's events from now on: what is recorded after this returns will be read."""
        connection = self._connect()
        try:
            answer = self._ask(connection, "GET", f"/debug/events?model={quote(model, safe='')}", None)
            if answer.status != 200:
                raise _said_no(answer.status, answer.read())
        except BaseException:
            connection.close()
            raise
        return EventReader(connection, answer)

    def stream(self, path: str) -> Iterator[bytes]:
        """The answer's lines as they come, until it ends. Raises ServerDownError, AnswerError."""
        connection = self._connect()
        try:
            answer = self._ask(connection, "GET", path, None)
            if answer.status != 200:
                raise _said_no(answer.status, answer.read())
            while line := answer.readline():
                yield line
        except (OSError, http.client.HTTPException) as error:
            raise self._down(error) from error
        finally:
            connection.close()

    def _json(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        connection = self._connect()
        try:
            answer = self._ask(connection, method, path, body)
            try:
                data = answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise self._down(error) from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise _said_no(answer.status, data)
        try:
            tree = json.loads(data)
        except ValueError:
            tree = None
        if not isinstance(tree, dict):
            raise AnswerError(f"{self.url} answers, but it is not vllama; check --server", "not_vllama")
        return tree

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
        try:
            connection.connect()
        except OSError as error:
            raise self._down(error) from error
        connection.sock.settimeout(None)
        return connection

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            connection.request(method, self._path + path, body, headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._down(error) from error

    def _down(self, error: Exception) -> ServerDownError:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return ServerDownError(
            f"no vllama server answers at {self.url} ({why}): start one with `vllama serve`, or name another with --server"
        )


class EventReader:
    """An open stream of events. `close` may be called while another thread reads."""

    def __init__(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> None:
        self._socket = connection.sock
        self._connection = connection
        self._answer = answer

    def __iter__(self) -> Iterator[ServerEvent]:
        kind, data = "", ""
        while True:
            try:
                line = self._answer.readline().decode()
            except (OSError, http.client.HTTPException, ValueError):
                return
            if not line:
                return
            name, _, value = line.rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                data = value
            elif not name and data:
                yield ServerEvent(kind, json.loads(data))
                kind, data = "", ""

    def hang_up(self) -> None:
        """Make the reading end, from any thread."""
        import socket

        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the server has ended it already

    def close(self) -> None:
        """Give the connection back, once nobody reads."""
        self._answer.close()
        self._connection.close()


def _said_no(status: int, data: bytes) -> AnswerError:
    """The error in the server's own words, or the bare status of whatever answers there."""
    try:
        error = json.loads(data)["error"]
        return AnswerError(str(error["message"]), str(error.get("code", status)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return AnswerError(
            f"the server answered with status {status}; is it vllama? check --server", str(status)
        )
