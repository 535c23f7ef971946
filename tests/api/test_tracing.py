"""OpenTelemetry: the caller's trace goes on to the engine, with spans of ours where an exporter is configured."""

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from serving import wait_until

from tests.api.caches import CHAT
from tests.api.rig import BOUND_S, Rig
from vllama.api.tracing import tracing_of
from vllama.config import load_config

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
ECHO = "/v1/completions/render"  # the fake engine tells back what came


class Collector:
    """An OTLP/HTTP receiver on a real socket."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        self.paths: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.take(self.path, body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def take(self, path: str, body: bytes) -> None:
        self.paths.add(path)
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append({a.key: a.value.string_value for a in of_resource.resource.attributes})
            for of_scope in of_resource.scope_spans:
                self.spans.extend(of_scope.spans)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def named(self, *names: str) -> list[Span]:
        """Returns when a span of each name has come."""
        assert wait_until(lambda: {span.name for span in self.spans} >= set(names), BOUND_S), self.spans
        return [next(span for span in self.spans if span.name == name) for name in names]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def about(span: Span) -> dict[str, object]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def sent(rig: Rig, headers: dict[str, str]) -> dict[str, str]:
    """The headers with which a request came to its engine."""
    answer = rig.http.post(ECHO, json={"model": CHAT, "prompt": "x"}, headers=headers)
    return answer.raise_for_status().json()["headers"]


@pytest.fixture
def traced(make_rig, collector: Collector) -> Rig:
    return make_rig(env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "20"})


def test_the_callers_trace_goes_through_as_it_came_where_nothing_is_configured(rig: Rig) -> None:
    for _ in ("the ordinary way, which begins the model", "the fast path"):
        headers = sent(rig, CALLER)
        assert {name: headers[name] for name in CALLER} == CALLER
    assert "traceparent" not in sent(rig, {})


def test_spans_for_wait_start_and_forward_with_the_engines_request_below(
    traced: Rig, collector: Collector
) -> None:
    headers = sent(traced, CALLER | {"X-Request-Id": "abc"})
    root, wait, start, forward = collector.named(f"POST {ECHO}", "wait", "start", "forward")
    assert {span.trace_id.hex() for span in (root, wait, start, forward)} == {TRACE}
    assert root.parent_span_id.hex() == PARENT
    assert {wait.parent_span_id, forward.parent_span_id} == {root.span_id}
    assert start.parent_span_id == wait.span_id
    assert headers["traceparent"] == f"00-{TRACE}-{forward.span_id.hex()}-01"
    assert headers["tracestate"] == "vendor=1"
    assert (root.kind, forward.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    assert about(root) == {
        "http.request.method": "POST",
        "http.route": ECHO,
        "http.response.status_code": 200,
        "vllama.request_id": "abc",
        "gen_ai.request.model": CHAT,
    }
    assert about(wait)["vllama.state"] == "cold"
    assert about(start)["vllama.rise_s"] > 0
    for outer, inner in ((root, wait), (wait, start), (root, forward)):
        assert outer.start_time_unix_nano <= inner.start_time_unix_nano <= inner.end_time_unix_nano
    assert wait.end_time_unix_nano <= forward.start_time_unix_nano
    assert collector.paths == {"/v1/traces"}
    assert collector.resources[0]["service.name"] == "vllama"


def test_a_wake_is_a_wake_a_warm_request_only_waits(traced: Rig, collector: Collector) -> None:
    traced.command("start", CHAT).raise_for_status()
    sent(traced, {})
    (wait,) = collector.named("wait")
    assert about(wait)["vllama.state"] == "warm"
    assert "start" not in {span.name for span in collector.spans}
    (root,) = collector.named(f"POST {ECHO}")
    assert root.parent_span_id == b""  # a trace of its own
    traced.command("sleep", CHAT, level=1).raise_for_status()
    sent(traced, {})
    collector.named("wake")


def test_a_refusal_is_an_error_of_its_spans(make_rig, collector: Collector) -> None:
    rig = make_rig(
        "die_at_start", env={"VLLAMA_OTEL_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "20"}
    )
    assert rig.http.post(ECHO, json={"model": CHAT}, headers=CALLER).status_code == 502
    root, wait = collector.named(f"POST {ECHO}", "wait")
    assert about(root)["error.type"] == about(wait)["error.type"] == "start_failed"
    assert about(root)["http.response.status_code"] == 502
    assert root.status.code == wait.status.code == 2


def test_what_is_not_yet_sent_is_sent_at_the_end(make_rig, collector: Collector) -> None:
    rig = make_rig(env={"VLLAMA_OTEL_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "3600000"})
    sent(rig, CALLER)
    assert collector.spans == []
    rig.server.end()
    assert {span.name for span in collector.spans} >= {"wait", "start", "forward"}


def test_a_collector_that_is_away_holds_up_neither_requests_nor_the_end(make_rig) -> None:
    rig = make_rig(env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "20"})
    sent(rig, CALLER)
    rig.server.end()


def test_nothing_is_imported_unless_an_exporter_is_configured() -> None:
    code = (
        "import sys, vllama.api.server\n"
        "from vllama.api.tracing import tracing_of\n"
        "from vllama.config import load_config\n"
        "assert tracing_of(load_config(env={}), {}.get, {}) is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=BOUND_S
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.parametrize(
    "env",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {},
    ],
)
def test_what_turns_it_off(env: dict[str, str]) -> None:
    assert tracing_of(load_config(env={}), {}.get, env) is None


def test_a_missing_extra_is_said_and_requests_are_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert tracing_of(load_config(env={"VLLAMA_OTEL_ENDPOINT": "http://x"}), {}.get, {}) is None
    assert "pip install 'vllama[otel]'" in caplog.text
