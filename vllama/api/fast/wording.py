"""Heads of answers, in bytes: an engine's as it is passed on, and our own."""

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from vllama.actors import Ticket
from vllama.api.link import Answer
from vllama.api.proxy import NOT_RETURNED

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def answer_head(
    answer: Answer, default: bytes, request_id: bytes, ticket: Ticket, *, chunked: bool, keep: bool
) -> bytes:
    """The head of an engine's answer without what is the hop's, with what is ours."""
    lines = [STATUS_LINE[answer.status], default]
    also = None
    for name, value in answer.headers:
        if name in NOT_RETURNED:
            if name == b"connection":
                also = {token.strip().lower() for token in value.split(b",")}
        else:
            lines.append(b"%b: %b\r\n" % (name, value))
    if also and not also <= {b"close", b"keep-alive"}:
        kept = [
            (name, value) for name, value in answer.headers if name not in NOT_RETURNED and name not in also
        ]
        lines[2:] = [b"%b: %b\r\n" % header for header in kept]
    lines.append(
        b"x-request-id: %b\r\nx-vllama-state: %b\r\nx-vllama-wait-ms: %.1f\r\n%b%b\r\n"
        % (
            request_id,
            ticket.state.encode(),
            ticket.wait_ms,
            b"transfer-encoding: chunked\r\n" if chunked else b"",
            b"" if keep else b"connection: close\r\n",
        )
    )
    return b"".join(lines)


def plain_head(answer: Response, default: bytes, *, keep: bool) -> bytes:
    """The head of an answer of our own."""
    lines = [STATUS_LINE[answer.status_code], default]
    lines += [b"%b: %b\r\n" % header for header in answer.raw_headers]
    lines.append(b"\r\n" if keep else b"connection: close\r\n\r\n")
    return b"".join(lines)
