"""Spans for OpenTelemetry, where an exporter is configured; nothing of it is imported otherwise.

    POST /v1/chat/completions       child of the caller's span
      wait                          from the ask to the ticket, or to the refusal
        start | wake                the part of it in which the engine rose, by the journal
      forward                       from the first byte to the engine to the last byte of its answer
        (the engine's own spans)    its request carries `traceparent` of forward

Without an exporter the caller's `traceparent` and `tracestate` go to the engine as they came.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Protocol

from vllama.config import VllamaConfig

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanKind

CARRIED = (b"traceparent", b"tracestate")
CLOSE_S = 3.0  # how long the end of the server waits for spans that are not yet sent
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

Headers = Sequence[tuple[bytes, bytes]]
Attribute = str | int | float

log = logging.getLogger(__name__)


class RiseLike(Protocol):
    """A start or wake that ended awake: `how`, and when it began and ended (unix time)."""

    @property
    def how(self) -> str: ...
    @property
    def began(self) -> float: ...
    @property
    def ended(self) -> float: ...


class Tracing:
    """Makes the spans of requests and sends them in the background."""

    def __init__(self, provider: "TracerProvider", rise_of: Callable[[str], RiseLike | None]) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self.rise_of = rise_of
        self.tracer = provider.get_tracer("vllama", metadata.version("vllama"))
        self.propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, route: str, headers: Headers, request_id: str) -> "Trace":
        """The spans of one request, from now on."""
        return Trace(self, method, route, headers, request_id)

    def close(self) -> None:
        """Send what is left, for so long and no longer: a collector that is away must not hold the server's end."""
        closing = threading.Thread(target=self._provider.shutdown, name="otel-shutdown", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


class Trace:
    """One request's spans. Its methods are called in the order of a request's life; `end` ends whatever is open."""

    def __init__(self, tracing: Tracing, method: str, route: str, headers: Headers, request_id: str) -> None:
        from opentelemetry.trace import SpanKind

        self._kinds = SpanKind
        self._tracing = tracing
        carried = {key.decode(): value.decode("latin-1") for key, value in headers if key in CARRIED}
        about = {"http.request.method": method, "http.route": route, "vllama.request_id": request_id}
        self._root = self._span(
            f"{method} {route}", tracing.propagator.extract(carried), about, SpanKind.SERVER, time.time_ns()
        )
        self._wait: Span | None = None
        self._wait_ns = 0
        self._forward: Span | None = None

    def waiting(self, model: str) -> None:
        """It asks for an engine of this model."""
        self._root.set_attribute("gen_ai.request.model", model)
        self._wait_ns = time.time_ns()
        about: dict[str, Attribute] = {"gen_ai.request.model": model}
        self._wait = self._span("wait", self._under(self._root), about, self._kinds.INTERNAL, self._wait_ns)

    def admitted(self, model: str, how: str) -> None:
        """It has a ticket: warm, wake or cold."""
        wait, self._wait = self._wait, None
        if wait is None:
            return
        wait.set_attribute("vllama.state", how)
        if how != "warm" and (rise := self._tracing.rise_of(model)) is not None:
            began, ended = (int(at * 1e9) for at in (rise.began, rise.ended))
            name = "start" if rise.how == "cold" else "wake"
            about: dict[str, Attribute] = {
                "gen_ai.request.model": model,
                "vllama.rise_s": round(rise.ended - rise.began, 6),
            }
            # Who joins a rise that is under way has waited for the rest of it alone.
            span = self._span(name, self._under(wait), about, self._kinds.INTERNAL, max(began, self._wait_ns))
            span.end(max(ended, began, self._wait_ns))
        wait.end()

    def forwarding(self, host: str, port: int) -> list[tuple[bytes, bytes]]:
        """It goes to the engine, with these headers instead of the caller's."""
        about: dict[str, Attribute] = {"server.address": host, "server.port": port}
        self._forward = self._span(
            "forward", self._under(self._root), about, self._kinds.CLIENT, time.time_ns()
        )
        carrier: dict[str, str] = {}
        self._tracing.propagator.inject(carrier, self._under(self._forward))
        return [(key.encode(), value.encode()) for key, value in carrier.items()]

    def forwarded(self) -> None:
        """The engine's answer is over, or its connection is."""
        if self._forward is not None:
            self._forward.end()
            self._forward = None

    def end(self, status: int, error: str = "") -> None:
        """The request is over: its status, and the error's code where there is one."""
        from opentelemetry.trace import StatusCode

        for span in (self._wait, self._forward, self._root):
            if span is not None:
                if error:
                    span.set_attribute("error.type", error)
                    span.set_status(StatusCode.ERROR, error)
                if span is self._root:
                    span.set_attribute("http.response.status_code", status)
                span.end()
        self._wait = self._forward = None

    def _span(
        self, name: str, under: "Context", about: Mapping[str, Attribute], kind: "SpanKind", at_ns: int
    ) -> "Span":
        return self._tracing.tracer.start_span(name, under, kind=kind, attributes=about, start_time=at_ns)

    def _under(self, span: "Span") -> "Context":
        from opentelemetry.trace import set_span_in_context

        return set_span_in_context(span)


def without(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers but for those that say which trace a request belongs to."""
    return [(key, value) for key, value in headers if key not in CARRIED]


def tracing_of(
    config: VllamaConfig,
    rise_of: Callable[[str], RiseLike | None],
    env: Mapping[str, str] = os.environ,
) -> Tracing | None:
    """None where no exporter is configured, by `otel_endpoint` or OpenTelemetry's own variables. What keeps a configured one from
    working is said in the log, and requests are served without spans."""
    if not config.otel_endpoint and not any(env.get(name) for name in ENDPOINTS):
        return None
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true" or env.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    protocol = next((env[name] for name in PROTOCOLS if env.get(name)), "http/protobuf")
    if not config.otel_endpoint and protocol != "http/protobuf":
        log.warning("no traces: vllama sends them by OTLP as http/protobuf alone, not %s", protocol)
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning(
            "no traces: an exporter is configured, but %s is not installed; pip install 'vllama[otel]'",
            error.name,
        )
        return None
    about = {"service.version": metadata.version("vllama")}
    if "OTEL_SERVICE_NAME" not in env and "service.name=" not in env.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        about["service.name"] = "vllama"
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    base = config.otel_endpoint.rstrip("/")
    exporter = OTLPSpanExporter(endpoint=f"{base}/v1/traces") if base else OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    log.info("traces go to %s", base or next(env[name] for name in ENDPOINTS if env.get(name)))
    return Tracing(provider, rise_of)
