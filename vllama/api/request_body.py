"""Reads a request's body as it comes: small ones whole, large ones by a scanner and into a spool, never all of one at once."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

from starlette.types import Receive

from vllama.api.body import KEEP_KEYS, Headers, header, media_type, model_of, with_model
from vllama.api.formscan import FormScan, boundary_of
from vllama.api.jsonscan import JsonScan, checked_model
from vllama.api.keep import keep_of
from vllama.api.spool import Spool
from vllama.errors import BadRequest, BodyTooLarge, UnsupportedBody, cited

# Up to here the standard library's parser is quicker, and nobody waits for it; beyond, the loop must be let go now and then.
WHOLE_BYTES_MAX = 2**16
JSON = "application/json"
_KEEP_NAMES = tuple(f'"{key}"'.encode() for key in KEEP_KEYS)


class Body:
    """A request's body and the model that it names. It can be sent more than once, under the name that the engine knows, and
    without what was for us: `keep_s`, how long the model is to stay awake after it (None: it does not say)."""

    __slots__ = ("_form", "_put", "_span", "_spool", "_taken", "_whole", "keep_s", "model")

    def __init__(
        self,
        model: str,
        whole: bytes = b"",
        spool: Spool | None = None,
        span: tuple[int, int] = (0, 0),
        *,
        form: bool = False,
        taken: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.model = model
        self.keep_s: float | None = None
        self._taken = taken
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
        return self._spool.size + sum(len(put) - (end - start) for start, end, put in self._edits())

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()

    async def _blocks(self, spool: Spool) -> AsyncIterator[bytes]:
        at = 0
        for start, end, put in (*self._edits(), (spool.size, spool.size, b"")):
            async for block in spool.read(at, start):
                yield block
            if put:
                yield put
            at = end

    def _edits(self) -> list[tuple[int, int, bytes]]:
        """What stands elsewhere instead, from left to right."""
        edits = [(start, end, b"") for start, end in self._taken]
        if self._put is not None:
            edits.append((*self._span, self._put))
        return sorted(edits)


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
            return _scanned(scan, spool)
        whole = spool.whole() or b""
        body = Body(checked_model(model_of(whole)), whole)
        return _without_ours(body, whole) if any(name in whole for name in _KEEP_NAMES) else body
    except BaseException:
        spool.close()
        raise


def _scanned(scan: FormScan | JsonScan, spool: Spool) -> Body:
    model = scan.end()
    if isinstance(scan, FormScan):
        return Body(model, spool=spool, span=scan.span, form=True)
    body = Body(model, spool=spool, span=scan.span, taken=scan.taken)
    body.keep_s = keep_of(scan.said)
    return body


def _without_ours(body: Body, whole: bytes) -> Body:
    """A short body may have a key that is for us."""
    scan = JsonScan()
    try:
        scan.feed(whole)
        scan.end()
    except BadRequest:
        if scan.said or not whole.startswith((b"\xff", b"\xfe", b"\xef", b"\x00")):
            raise
        return body  # no UTF-8, which the standard library takes: whoever writes so knows no keys of ours
    for start, end in reversed(scan.taken):
        whole = whole[:start] + whole[end:]
    without = Body(body.model, whole)
    without.keep_s = keep_of(scan.said)
    return without


def _scan_for(headers: Headers, *, form: bool) -> FormScan | JsonScan | None:
    """What looks for the model; None leaves it to the body's size. Raises UnsupportedBody."""
    coding = header(headers, b"content-encoding")
    if coding is not None and coding.strip().lower() not in ("", "identity"):
        raise UnsupportedBody(
            f"The request body is compressed ({cited(coding)}); send it as it is, without Content-Encoding."
        )
    if not form:
        _check_json(headers)
        return None
    boundary = boundary_of(header(headers, b"content-type") or "")
    if boundary is None:
        raise UnsupportedBody(
            "This route takes multipart/form-data, with the model as the form field `model`."
        )
    return FormScan(boundary)


def _check_json(headers: Headers) -> None:
    """An engine would refuse it, too, but only once it is awake. Of a body that is said to be nothing it is asked."""
    if (kind := media_type(headers)) not in ("", JSON):
        raise UnsupportedBody(f"This route takes {JSON}, not {cited(kind)}: send Content-Type: {JSON}.")


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
