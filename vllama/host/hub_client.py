"""The hub's protocol as far as a pull needs it: what a revision is, and the bytes of its files, again and again until whole."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from vllama.errors import ModelUnknown, PullFailed, VllamaError

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK_BYTES = 2**20
TIMEOUT_S = 30.0
TRIES_MAX = 5  # in a row without a byte
PAUSE_S = 0.2  # before the second try; then twice as long each time

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r"[0-9A-Za-z_.-]{8,128}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a revision. `etag` names its blob in the cache: the SHA-256 of a large file, git's id of a small one."""

    name: str
    etag: str
    size: int

    @property
    def digest(self) -> str:
        return f"{'sha256' if len(self.etag) == 64 else 'sha1'}:{self.etag}"

    def hasher(self) -> "_Hash | None":
        """What its bytes must hash to `etag` by; None for an etag that is no digest."""
        if re.fullmatch("[0-9a-f]{64}", self.etag):
            return hashlib.sha256()
        if re.fullmatch("[0-9a-f]{40}", self.etag):
            return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        return None


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit and the names of its files; those that the hub told all about have their RemoteFile already."""

    commit: str
    names: tuple[str, ...]
    known: Mapping[str, RemoteFile]


class HubClient:
    """One hub. Raises VllamaError with the reason and what to do."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self.endpoint = endpoint.rstrip("/")
        headers = {"User-Agent": "vllama", "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx.Client(headers=headers, follow_redirects=True, timeout=TIMEOUT_S)

    def close(self) -> None:
        self._http.close()

    def revision(self, model: str, name: str) -> Revision:
        """What the branch, tag or commit `name` is now."""
        url = f"{self.endpoint}/api/models/{model}/revision/{quote(name, safe='')}"
        answer = self._patiently(lambda: self._http.get(url, params={"blobs": "true"}), model)
        _check(answer, model, name, self.endpoint)
        try:
            tree = answer.json()
            commit, siblings = tree["sha"], tree["siblings"]
            names = tuple(_name(sibling["rfilename"], model) for sibling in siblings)
            known = {file.name: file for sibling in siblings if (file := _told(sibling)) is not None}
        except (ValueError, KeyError, TypeError) as error:
            raise PullFailed(
                f"{self.endpoint} does not answer as a hub does: {error!r}", model=model
            ) from error
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise PullFailed(f"{self.endpoint} names no commit for {model} (it says {commit!r})", model=model)
        return Revision(commit, names, known)

    def file(self, model: str, commit: str, name: str) -> RemoteFile:
        """What the hub says of one file, asked for by itself: a mirror may not list blobs."""
        answer = self._patiently(
            lambda: self._http.head(self._url(model, commit, name), follow_redirects=False), model
        )
        for _ in range(
            5
        ):  # a redirect within the hub (a renamed repository); the one to its store has the headers
            place = answer.headers.get("location", "")
            if not answer.is_redirect or "x-linked-etag" in answer.headers or not place.startswith("/"):
                break
            answer = self._http.head(self.endpoint + place, follow_redirects=False)
        if not answer.is_redirect:
            _check(answer, model, commit, self.endpoint)
        etag = answer.headers.get("x-linked-etag") or answer.headers.get("etag") or ""
        size = answer.headers.get("x-linked-size") or answer.headers.get("content-length") or ""
        etag = etag.removeprefix("W/").strip('"')
        if not _ETAG.fullmatch(etag) or not size.isdecimal():
            raise PullFailed(f"{self.endpoint} says neither size nor etag of {name} of {model}", model=model)
        return RemoteFile(name, etag, int(size))

    def fetch(
        self, model: str, commit: str, file: RemoteFile, to: Path, moved: Callable[[int], None]
    ) -> None:
        """The whole file is at `to`, checked. What is there already of it is kept and gone on from; `moved` hears of each
        step how many bytes there are."""
        tries = 0
        while True:
            before = to.stat().st_size if to.exists() else 0
            try:
                self._go_on(model, commit, file, to, moved)
                return
            except httpx.TransportError as error:
                tries = 0 if to.exists() and to.stat().st_size > before else tries + 1
                if tries >= TRIES_MAX:
                    raise _lost(self.endpoint, model, error) from error
                time.sleep(PAUSE_S * 2**tries)

    def _go_on(
        self, model: str, commit: str, file: RemoteFile, to: Path, moved: Callable[[int], None]
    ) -> None:
        hasher = file.hasher()
        with to.open("a+b", buffering=0) as out:  # what has come stays, however this process ends
            at = out.tell()
            if at > file.size:
                out.truncate(at := 0)
            _take_in(out, hasher, at)
            moved(at)
            if at < file.size:
                headers = {"Range": f"bytes={at}-"} if at else {}
                with self._http.stream("GET", self._url(model, commit, file.name), headers=headers) as answer:
                    if answer.status_code >= 400:
                        answer.read()
                        _check(answer, model, commit, self.endpoint)
                    if answer.status_code != 206 and at:  # this store knows no ranges: from the beginning
                        out.truncate(at := 0)
                        hasher = file.hasher()
                    for chunk in answer.iter_raw():
                        _write(out, chunk)
                        if hasher is not None:
                            hasher.update(chunk)
                        moved(at := at + len(chunk))
            os.fsync(out.fileno())
        if at != file.size:
            raise httpx.RemoteProtocolError(f"{file.name} ended at {at} of {file.size} bytes")
        if hasher is not None and hasher.hexdigest() != file.etag:
            to.unlink()
            raise PullFailed(
                f"{file.name} of {model} is not what the hub says it is ({file.digest}); it was thrown away, pull again",
                model=model,
            )

    def _url(self, model: str, commit: str, name: str) -> str:
        return f"{self.endpoint}/{model}/resolve/{commit}/{quote(name)}"

    def _patiently(self, ask: Callable[[], httpx.Response], model: str) -> httpx.Response:
        """An answer, though the first tries may fail."""
        for tries in range(TRIES_MAX):
            try:
                answer = ask()
                if answer.status_code not in (429, 500, 502, 503, 504) or tries == TRIES_MAX - 1:
                    return answer
            except httpx.TransportError as error:
                if tries == TRIES_MAX - 1 or isinstance(error, httpx.ConnectError):
                    raise _lost(self.endpoint, model, error) from error
            time.sleep(PAUSE_S * 2**tries)
        raise AssertionError("unreachable: the last try returns or raises")


def _write(out: FileIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[out.write(rest) :]


def _take_in(out: FileIO, hasher: "_Hash | None", size: int) -> None:
    """What an earlier pull has left counts for the digest too."""
    out.seek(0)
    while size > 0 and (chunk := out.read(min(CHUNK_BYTES, size))):
        size -= len(chunk)
        if hasher is not None:
            hasher.update(chunk)
    out.seek(0, os.SEEK_END)


def _told(sibling: Mapping[str, Any]) -> RemoteFile | None:
    """A file of which the list says all."""
    lfs = sibling.get("lfs") or {}
    etag = lfs.get("sha256") or lfs.get("oid") or sibling.get("blobId")
    size = lfs.get("size", sibling.get("size"))
    if not isinstance(etag, str) or not _ETAG.fullmatch(etag) or not isinstance(size, int):
        return None
    return RemoteFile(sibling["rfilename"], etag, size)


def _name(name: str, model: str) -> str:
    """A file's name, if it stays within the snapshot's folder."""
    if name.startswith("/") or "\\" in name or "\0" in name or {"", ".", ".."} & set(name.split("/")):
        raise PullFailed(
            f"{model} has a file of the name {name!r}, which leads out of its folder", model=model
        )
    return name


def _check(answer: httpx.Response, model: str, revision: str, endpoint: str) -> None:
    """Raises what a refusal of the hub means."""
    if answer.is_success:
        return
    code = answer.headers.get("x-error-code", "")
    if code == "GatedRepo" or answer.status_code == 403:
        raise PullFailed(
            f"{model} is gated: ask for access at {endpoint}/{model}, then give vllama a token that has it (HF_TOKEN)",
            model=model,
        )
    if code == "RevisionNotFound":
        raise ModelUnknown(f"{model} has no revision {revision!r} at {endpoint}", model=model)
    if answer.status_code in (401, 404):
        raise ModelUnknown(
            f"there is no model {model!r} at {endpoint}; if it is private, give vllama a token that may read it (HF_TOKEN)",
            model=model,
        )
    raise PullFailed(f"{endpoint} answered {answer.status_code} for {model}; try again", model=model)


def _lost(endpoint: str, model: str, error: Exception) -> VllamaError:
    cause = str(error) or type(error).__name__
    return PullFailed(
        f"{endpoint} cannot be reached for {model} ({cause}); what has come is kept, pull again to go on",
        model=model,
    )
