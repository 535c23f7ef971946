"""Reads a request's body as it comes: small ones whole, large ones by a scanner and into a spool, never all of one at once."""

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.types import Receive

from vllama.api.body import Headers, header, model_of, with_model
from vllama.api.formscan import FormScan, boundary_of
from vllama.api.jsonscan import JsonScan, checked_model
from vllama.api.spool import Spool
from vllama.errors import BodyTooLarge, UnsupportedBody

# Up to here the standard library's parser is quicker, and nobody waits for it; beyond, the loop must be let go now and then.
WHOLE_BYTES_MAX = 2**16


class Body:
    """A request's body and the model that it names. It can be sent more than once, under the name that the engine knows."""

    __slots__ = ("_form", "_put", "_span", "_spool", "_whole", "model")

    def __init__(
        self,
        model: str,
        whole: bytes = b"",
        spool: Spool | None = None,
        span: tuple[int, int] = (0, 0),
        *,
        form: bool = False,
    ) -> None:
        self.model = model
        self._whole = whole
        self._spool = spool
        self._span = span
        self._form = form
        self._put: bytes | None = None

    def rename(self, model: str) -> None:
        """From now on it names another model; no other byte changes."""
        if self._spool is None:
            self._whole = with_model(self._whole, model)
        else:
            self._put = model.encode() if self._form else json.dumps(model).encode()

    def content(self) -> bytes | AsyncIterator[bytes]:
        """All of it, or a new iterator over it."""
        return self._whole if self._spool is None else self._blocks(self._spool)

    @property
    def size(self) -> int:
        if self._spool is None:
            return len(self._whole)
        start, end = self._span
        return self._spool.size + (len(self._put) - (end - start) if self._put is not None else 0)

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()

    async def _blocks(self, spool: Spool) -> AsyncIterator[bytes]:
        start, end = self._span if self._put is not None else (0, 0)
        async for block in spool.read(0, start):
            yield block
        if self._put is not None:
            yield self._put
        async for block in spool.read(end, spool.size):
            yield block


async def read_request(
    receive: Receive, headers: Headers, bytes_max: int, *, form: bool = False
) -> Body | None:
    """The body of a request; None if the client hung up first. Raises BodyTooLarge, BadRequest, UnsupportedBody."""
    scan = _scan_for(headers, form=form)
    _check_declared(headers, bytes_max)
    spool = Spool()
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                spool.close()
                return None
            part: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            if spool.size + len(part) > bytes_max:
                raise BodyTooLarge(
                    f"The request body is longer than the {bytes_max} bytes this server takes."
                )
            if scan is None and spool.size + len(part) > WHOLE_BYTES_MAX:
                scan = JsonScan()
                await _feed(scan, spool.whole() or b"")
            if scan is not None:
                await _feed(scan, part)
            await spool.add(part)
            if not more:
                break
        if scan is not None:
            return Body(scan.end(), spool=spool, span=scan.span, form=form)
        whole = spool.whole() or b""
        return Body(checked_model(model_of(whole)), whole)
    except BaseException:
        spool.close()
        raise


def _scan_for(headers: Headers, *, form: bool) -> FormScan | JsonScan | None:
    """What looks for the model; None leaves it to the body's size. Raises UnsupportedBody."""
    coding = header(headers, b"content-encoding")
    if coding is not None and coding.strip().lower() not in ("", "identity"):
        raise UnsupportedBody(
            f"The request body is compressed ({coding}); send it as it is, without Content-Encoding."
        )
    if not form:
        return None
    boundary = boundary_of(header(headers, b"content-type") or "")
    if boundary is None:
        raise UnsupportedBody(
            "This route takes multipart/form-data, with the model as the form field `model`."
        )
    return FormScan(boundary)


def _check_declared(headers: Headers, bytes_max: int) -> None:
    declared = header(headers, b"content-length")
    if declared is not None and declared.isdecimal() and int(declared) > bytes_max:
        raise BodyTooLarge(f"The request body has {declared} bytes; this server takes at most {bytes_max}.")


async def _feed(scan: FormScan | JsonScan, part: bytes) -> None:
    """The loop is let go between pieces: a part may be as long as the server's buffer."""
    for begin in range(0, len(part), WHOLE_BYTES_MAX):
        if begin:
            await asyncio.sleep(0)
        scan.feed(part[begin : begin + WHOLE_BYTES_MAX])
