"""The CLI's HTTP client: the standard library only, because `vllama ps` must be quick.

What the server can answer from memory must come within `ANSWER_S`; a command waits as long as a start takes, and who follows
waits for ever.
"""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from vllama.cli import address

CONNECT_TIMEOUT_S = 5.0
ANSWER_S = 10.0


class ServerDownError(Exception):
    """Nobody answers at the URL, or not in time. `nobody`: nothing listens there, on this machine."""

    nobody = False


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


class Client:
    """One server, by its URL; without one that which the settings say. Raises ValueError for what is no URL."""

    def __init__(self, server: str | None = None, key: str | None = None) -> None:
        self._key = address.default_key() if key is None else key
        found = address.find(server)
        self.url = found.url
        self._secure = found.secure
        self._host = found.host
        self._port = found.port
        self._path = found.path

    def get(self, path: str) -> dict[str, Any]:
        """The JSON answer, in time. Raises ServerDownError, AnswerError."""
        return self._json("GET", path, None, ANSWER_S)

    def post(self, path: str, body: Mapping[str, Any], within_s: float | None = None) -> dict[str, Any]:
        """The JSON answer, however long it takes unless `within_s` says. Raises ServerDownError, AnswerError."""
        return self._json("POST", path, json.dumps(body).encode(), within_s)

    @contextmanager
    def answering(self, path: str, body: Mapping[str, Any]) -> Iterator[http.client.HTTPResponse]:
        """The answer to a POST, to be read as it comes, however long it takes; leaving it hangs up, which aborts it.
        Raises ServerDownError, AnswerError."""
        connection = self._connect(None)
        try:
            answer = self._ask(connection, "POST", path, json.dumps(body).encode())
            if answer.status >= 400:
                raise _said_no(answer.status, answer.read())
            yield answer
        except (OSError, http.client.HTTPException) as error:
            raise ServerDownError(
                f"the answer of {self.url} broke off ({str(error) or type(error).__name__}): ask again, `vllama ps` tells more"
            ) from error
        finally:
            connection.close()

    def events(self, model: str, query: str = "") -> "EventReader":
        """The model's events from now on, or as `query` says: what is recorded after this returns will be read."""
        return EventReader(*self._opened(f"/debug/events?model={quote(model, safe='')}{query}"))

    def all_events(self, query: str) -> "EventReader":
        """Everybody's events, as `query` says."""
        return EventReader(*self._opened(f"/debug/events?{query}"))

    def lines(self, path: str) -> "LineReader":
        """The answer's lines as they come, for as long as there are any."""
        return LineReader(*self._opened(path))

    def _opened(
        self, path: str
    ) -> tuple[http.client.HTTPConnection, socket.socket, http.client.HTTPResponse]:
        """An answer that is read for ever. Raises ServerDownError, AnswerError."""
        connection = self._connect(ANSWER_S)
        sock = connection.sock
        try:
            answer = self._ask(connection, "GET", path, None)
            if answer.status != 200:
                raise _said_no(answer.status, answer.read())
            sock.settimeout(None)
        except BaseException:
            connection.close()
            raise
        return connection, sock, answer

    def stream(self, path: str, *, follow: bool = False) -> Iterator[bytes]:
        """The answer's lines as they come, until it ends; who follows waits for each. Raises ServerDownError, AnswerError."""
        connection = self._connect(ANSWER_S)
        sock = connection.sock
        try:
            answer = self._ask(connection, "GET", path, None)
            if answer.status != 200:
                raise _said_no(answer.status, answer.read())
            if follow:
                sock.settimeout(None)
            while line := answer.readline():
                yield line
        except (OSError, http.client.HTTPException) as error:
            raise self._down(error) from error
        finally:
            connection.close()

    def _json(self, method: str, path: str, body: bytes | None, within_s: float | None) -> dict[str, Any]:
        connection = self._connect(within_s)
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

    def _connect(self, within_s: float | None) -> http.client.HTTPConnection:
        """A connection on which each read gets so long."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
        try:
            connection.connect()
        except OSError as error:
            raise self._down(error) from error
        connection.sock.settimeout(within_s)
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
        if isinstance(error, TimeoutError) and not error.errno:
            return ServerDownError(
                f"the server at {self.url} did not answer in time: is it vllama, or is it stuck? Its own log may tell; "
                "`vllama ps` asks again, --server names another"
            )
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        down = ServerDownError(
            f"no vllama server answers at {self.url} ({why}): start one with `vllama serve`, or name another with --server"
        )
        here = not self._secure and self._host in address.LOOPBACK and not self._path
        down.nobody = here and isinstance(error, ConnectionRefusedError)
        return down


class LineReader:
    """An open stream of lines. `hang_up` may be called while another thread reads."""

    def __init__(
        self, connection: http.client.HTTPConnection, sock: socket.socket, answer: http.client.HTTPResponse
    ) -> None:
        self._socket = sock
        self._connection = connection
        self._answer = answer

    def lines(self) -> Iterator[bytes]:
        """Until the server or `hang_up` ends it."""
        while True:
            try:
                line = self._answer.readline()
            except (OSError, http.client.HTTPException, ValueError):
                return
            if not line:
                return
            yield line

    def hang_up(self) -> None:
        """Make the reading end, from any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the server has ended it already

    def close(self) -> None:
        """Give the connection back, once nobody reads."""
        self._answer.close()
        self._connection.close()


class EventReader(LineReader):
    """An open stream of events."""

    def __iter__(self) -> Iterator[ServerEvent]:
        kind, data = "", ""
        for line in self.lines():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                data = value
            elif not name and data:
                yield ServerEvent(kind, json.loads(data))
                kind, data = "", ""


def _said_no(status: int, data: bytes) -> AnswerError:
    """The error in the server's own words, or the bare status of whatever answers there."""
    try:
        error = json.loads(data)["error"]
        return AnswerError(str(error["message"]), str(error.get("code", status)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return AnswerError(
            f"the server answered with status {status}; is it vllama? check --server", str(status)
        )
