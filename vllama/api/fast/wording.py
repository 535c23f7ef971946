"""Heads of answers, in bytes: an engine's as it is passed on, and our own."""

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from vllama.actors import Ticket
from vllama.api.engine_answer import Answer
from vllama.api.proxy import NOT_RETURNED

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


_STATES = {"warm": b"warm", "wake": b"wake", "cold": b"cold"}


def answer_head(
    answer: Answer,
    length: int | None,
    default: bytes,
    request_id: bytes,
    ticket: Ticket,
    *,
    chunked: bool,
    keep: bool,
) -> bytes:
    """The head of an engine's answer without what is the hop's, with what is ours."""
    lines = answer.lines
    if lines is None:
        lines = answer.lines = _passed_on(answer)
    return b"%b%b%b%bx-request-id: %b\r\nx-vllama-state: %b\r\nx-vllama-wait-ms: %.1f\r\n%b\r\n" % (
        STATUS_LINE[answer.status],
        default,
        lines,
        b"" if length is None else b"content-length: %d\r\n" % length,
        request_id,
        _STATES[ticket.state],
        ticket.wait_ms,
        _ENDS[chunked, keep],
    )


_ENDS = {
    (False, True): b"",
    (False, False): b"connection: close\r\n",
    (True, True): b"transfer-encoding: chunked\r\n",
    (True, False): b"transfer-encoding: chunked\r\nconnection: close\r\n",
}


def _passed_on(answer: Answer) -> bytes:
    """The lines that are no hop's: neither by their name nor because the answer's `Connection` says so."""
    dropped = set(NOT_RETURNED)
    for name, value in answer.headers:
        if name == b"connection":
            dropped.update(token.strip().lower() for token in value.split(b","))
    return b"".join(b"%b: %b\r\n" % header for header in answer.headers if header[0] not in dropped)


def plain_head(answer: Response, default: bytes, *, keep: bool) -> bytes:
    """The head of an answer of our own."""
    lines = [STATUS_LINE[answer.status_code], default]
    lines += [b"%b: %b\r\n" % header for header in answer.raw_headers]
    lines.append(b"\r\n" if keep else b"connection: close\r\n\r\n")
    return b"".join(lines)
