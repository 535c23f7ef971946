"""/ui: the page in the browser, as files of this package, and the one answer that it needs beside the control endpoints.

The files hold no secret and load without a key; what the page shows it asks for like any client. Nothing in it comes from
another host, and its policy lets nothing in.
"""

import hashlib
import re
import uuid
from collections.abc import Iterator
from importlib import resources
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

import vllama
from vllama.actors import System, history
from vllama.errors import BadRequest, cited

PATH = "/ui"
RECORDS_MAX = 5000
FILES = "ui"  # the folder beside this module
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_SERVER = uuid.uuid4().hex  # of this process: a reader sees by it that another server answers


def is_page(path: str) -> bool:
    """Whether a path is of the page itself."""
    return path == PATH or path.startswith(PATH + "/")


def is_led_here(scope: Scope) -> bool:
    """Whether somebody looks at `/` with a browser: he is led to the page, which asks for a key itself where one is wanted."""
    if scope["type"] != "http" or scope["path"] != "/" or scope["method"] not in ("GET", "HEAD"):
        return False
    return "text/html" in Headers(scope=scope).get("accept", "").lower()


def lead() -> Response:
    """To the page; another caller at the same path gets another answer."""
    return RedirectResponse(PATH, headers={"Vary": "Accept"})


def page_off() -> Response:
    """Where control is off the page would show nothing; it says why instead."""
    text = _read("off.html")
    return Response(text, 403, HEADERS, media_type=TYPES["html"])


def routes() -> Iterator[BaseRoute]:
    """A route for each file, `/ui` for index.html (with a slash, too), and `/control/history`."""
    for entry in resources.files(__package__).joinpath(FILES).iterdir():
        if (kind := entry.name.rpartition(".")[2]) in TYPES and entry.name != "off.html":
            path = PATH if entry.name == "index.html" else f"{PATH}/{entry.name}"
            yield Route(path, File(entry.read_bytes(), TYPES[kind]), methods=["GET"])
    yield Route(PATH + "/", _slash, methods=["GET"])
    yield Route("/control/history", _history, methods=["GET"])


class File:
    """One file of the page, as it was when the server started."""

    def __init__(self, content: bytes, media_type: str) -> None:
        self._content = content
        self._media_type = media_type
        self._headers = HEADERS | {"ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asked = Request(scope).headers.get("if-none-match", "")
        if self._headers["ETag"] in re.findall(r'"[^"]*"', asked):
            response = Response(status_code=304, headers=self._headers)
        else:
            response = Response(self._content, 200, self._headers, media_type=self._media_type)
        await response(scope, receive, send)


async def _slash(_: Request) -> Response:
    """A slash behind the page's name means the page."""
    return RedirectResponse(PATH)


async def _history(request: Request) -> Response:
    """`?records=N`: who answers, the time here, the state before the latest N records, and these: they lead to now."""
    system: System = request.app.state.system
    given = request.query_params.get("records", "2000")
    if not (given.isascii() and given.isdecimal() and int(given[:6]) <= RECORDS_MAX):
        raise BadRequest(f"records must be from 0 to {RECORDS_MAX}, not {cited(given)!r}.")
    about = {"server": _SERVER, "version": vllama.__version__}
    return JSONResponse(about | await history(system, int(given)), headers={"Cache-Control": "no-store"})


def _read(name: str) -> bytes:
    return resources.files(__package__).joinpath(FILES, name).read_bytes()
