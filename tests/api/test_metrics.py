"""GET /metrics over a real server: what it counts, how it is named, whose engines it asks and how it leaves them alone."""

import shutil
import subprocess
from threading import Thread
from typing import Any

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_text
from serving import wait_until

from tests.api.caches import CHAT, EMBED
from tests.api.prometheus_rules import broken_rules
from tests.api.rig import BOUND_S, Rig, chat_body
from vllama.api.metrics.figures import GROUPS

OPEN_METRICS = "application/openmetrics-text;version=1.0.0"


class Page:
    """One scrape, parsed."""

    def __init__(self, rig: Rig, query: str = "", **headers: str) -> None:
        answer = rig.http.get(f"/metrics{query}", headers=headers)
        assert answer.status_code == 200, answer.text
        self.text, self.kind = answer.text, answer.headers["content-type"]
        read = read_open if self.kind.startswith("application/openmetrics-text") else read_text
        self.families = {family.name: family for family in read(self.text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def of(self, name: str, **labels: str) -> list[Any]:
        """The samples of this name that have these labels, and maybe more."""
        return [s for s in self.samples if s.name == name and labels.items() <= s.labels.items()]

    def value(self, name: str, **labels: str) -> float:
        """The one that there is; 0 for none."""
        found = self.of(name, **labels)
        assert len(found) <= 1, found
        return found[0].value if found else 0.0


def counted(rig: Rig, requests: int) -> Page:
    """A page on which so many requests are over: the last one is counted a moment after its last byte."""
    pages: list[Page] = []

    def there() -> bool:
        pages[:] = [Page(rig)]
        return sum(s.value for s in pages[0].of("vllama_http_requests_total")) == requests

    assert wait_until(there, BOUND_S), pages[0].of("vllama_http_requests_total")
    return pages[0]


OUTCOMES = ("warm", "cold", "wake", "refused", "left")


def test_what_has_happened_is_counted(rig: Rig) -> None:
    rig.chat(CHAT).raise_for_status()
    rig.chat(CHAT).raise_for_status()
    rig.command("sleep", CHAT, level=1).raise_for_status()
    rig.chat(CHAT).raise_for_status()
    rig.http.post("/v1/chat/completions", json=chat_body("no/such-model"))
    page = counted(rig, 4)
    assert page.value("vllama_model_starts_total", model=CHAT) == 1
    assert page.value("vllama_model_wakes_total", model=CHAT) == 1
    assert page.value("vllama_model_sleeps_total", model=CHAT, level="1") == 1
    assert page.value("vllama_model_descents_total", model=CHAT, reason="command") == 1
    waits = {
        outcome: page.value("vllama_wait_seconds_count", model=CHAT, outcome=outcome) for outcome in OUTCOMES
    }
    assert waits == {"cold": 1, "warm": 1, "wake": 1, "refused": 0, "left": 0}
    assert page.value("vllama_model_rise_seconds_count", model=CHAT, how="cold") == 1
    assert page.value("vllama_model_rise_seconds_count", model=CHAT, how="wake") == 1
    phases = {s.labels["phase"]: s.value for s in page.of("vllama_model_phase", model=CHAT)}
    assert {phase for phase, on in phases.items() if on} == {"awake"}
    assert len(phases) == 10
    assert page.value("vllama_lease_outcomes_total", outcome="granted") == 2
    assert page.value("vllama_journal_records_total") > 20
    route = "/v1/chat/completions"
    assert page.value("vllama_http_requests_total", model=CHAT, route=route, status="200") == 3
    assert page.value("vllama_http_requests_total", model="", route=route, status="404") == 1
    assert page.value("vllama_http_request_duration_seconds_count", model=CHAT, route=route) == 3
    assert page.value("vllama_http_received_bytes_total", model=CHAT, route=route) > 3 * 80
    assert page.value("vllama_http_sent_bytes_total", model=CHAT, route=route) > 3 * 100
    assert page.value("process_resident_memory_bytes", model=CHAT) == 1.2345678e8  # the engine's
    assert len(page.of("process_resident_memory_bytes")) == 2  # and the server's


def test_memory_adds_up_to_the_device(rig: Rig) -> None:
    rig.chat(CHAT).raise_for_status()
    rig.command("start", EMBED).raise_for_status()
    rig.command("sleep", EMBED, level=2).raise_for_status()
    assert wait_until(
        lambda: Page(rig).value("vllama_model_memory_bytes", model=EMBED, kind="residue") > 0, BOUND_S
    )
    page = Page(rig)
    limit = page.value("vllama_device_memory_limit_bytes", device="cpu")
    kinds = {s.labels["kind"]: s.value for s in page.of("vllama_device_memory_bytes", device="cpu")}
    assert set(kinds) == {"awake", "residue", "returning", "unreturned", "shared", "free"}
    assert sum(kinds.values()) == limit > 0
    assert kinds["awake"] == page.value("vllama_model_memory_bytes", model=CHAT, kind="awake") > 0
    assert kinds["residue"] == page.value("vllama_model_memory_bytes", model=EMBED, kind="residue") > 0


def test_who_waits_and_who_goes_for_it(make_rig) -> None:
    rig = make_rig(env={"VLLAMA_MEMORY_LIMIT": "400MiB", "VLLAMA_BUSY_GRACE_S": "600"})
    with rig.stream(CHAT, gate="a") as (_, lines):
        next(lines)
        body = {"model": EMBED, "input": "x"}
        asking = Thread(target=rig.http.post, args=("/v1/embeddings",), kwargs={"json": body})
        asking.start()
        rig.until(EMBED, phase="queued")
        page = Page(rig)
        assert page.value("vllama_model_serving_requests", model=CHAT) == 1
        assert page.value("vllama_model_waiting_requests", model=EMBED) == 1
        assert page.value("vllama_leases", state="waiting") == 1
        assert page.of("vllama_evictions_total") == []
        rig.let(CHAT, "a")
        list(lines)
    asking.join(BOUND_S)
    page = counted(rig, 2)
    assert page.value("vllama_leases", state="waiting") == 0
    gone = page.of("vllama_evictions_total")
    assert {sample.labels["model"] for sample in gone} == {CHAT}
    assert page.value("vllama_evictions_caused_total", model=EMBED) == sum(s.value for s in gone) >= 1
    assert page.value("vllama_wait_seconds_sum", model=EMBED, outcome="cold") > 0


def test_a_failed_start_and_its_refusals(make_rig) -> None:
    rig = make_rig("die_at_start")
    assert rig.chat(CHAT).status_code == 502
    page = Page(rig)
    assert (
        page.value("vllama_model_failures_total", model=CHAT, during="start") == 2
    )  # one more try for who waits
    assert page.value("vllama_model_failures_total", model=CHAT) == 2
    assert page.value("vllama_refusals_total", model=CHAT, code="start_failed") == 1
    assert page.value("vllama_wait_seconds_count", model=CHAT, outcome="refused") == 1
    assert counted(rig, 1).value("vllama_http_requests_total", model=CHAT, status="502") == 1
    assert page.value("vllama_model_phase_seconds_total", model=CHAT, phase="starting") > 0


def test_a_refusal_at_once_is_counted_by_its_status(make_rig) -> None:
    rig = make_rig("die_at_start", env={"VLLAMA_BACKOFF_S": "60"})
    assert [rig.chat(CHAT).status_code for _ in range(2)] == [502, 502]  # the second one starts no engine
    page = counted(rig, 2)
    assert page.value("vllama_http_requests_total", model=CHAT, status="502") == 2
    assert page.value("vllama_http_sent_bytes_total", model=CHAT) > 100
    assert page.value("vllama_http_cut_answers_total", model=CHAT) == 0


def test_who_hangs_up_is_499_and_a_stream_that_breaks_is_cut(rig: Rig) -> None:
    rig.chat(CHAT).raise_for_status()
    with rig.hanging(chat_body(CHAT, "a")):
        rig.waits_at(CHAT, "a")
    with rig.stream(CHAT, gate="b") as (_, lines):
        next(lines)
        rig.waits_at(CHAT, "b")
        rig.kill_engine(CHAT)
        list(lines)
    page = counted(rig, 3)
    statuses = sorted(
        (s.labels["status"], s.value) for s in page.of("vllama_http_requests_total", model=CHAT)
    )
    assert statuses == [("200", 2.0), ("499", 1.0)]
    assert page.value("vllama_http_cut_answers_total", model=CHAT) == 1
    assert wait_until(
        lambda: Page(rig).value("vllama_model_failures_total", model=CHAT, during="serving") == 1, BOUND_S
    )


def test_both_formats_are_read_by_their_own_parsers_and_say_the_same(rig: Rig) -> None:
    rig.chat(CHAT).raise_for_status()
    text, opened = Page(rig), Page(rig, Accept=OPEN_METRICS)
    assert text.kind.startswith("text/plain")
    assert opened.kind.startswith("application/openmetrics-text")
    assert opened.text.endswith("# EOF\n")
    moving = ("_seconds", "process_", "vllama_journal", "vllama_device_memory_measured", "python_")

    def still(page: Page) -> set[tuple[str, tuple[tuple[str, str], ...], float]]:
        return {
            (s.name, tuple(sorted(s.labels.items())), s.value)
            for s in page.samples
            if not any(word in s.name for word in moving)
        }

    assert still(text) == still(opened)
    assert len(still(text)) > 35
    zipped = rig.http.get("/metrics", headers={"Accept-Encoding": "gzip"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert "vllama_build_info" in zipped.text


def test_names_follow_prometheus_rules(rig: Rig) -> None:
    rig.chat(CHAT).raise_for_status()
    with_engine, ours = Page(rig), Page(rig, "?engines=0")
    assert list(broken_rules(ours.text)) == []
    assert {fault.partition(":")[0] for fault in broken_rules(with_engine.text)} == {"vllm"}  # their colons
    for figures in GROUPS.values():
        for figure in figures:
            assert f"# TYPE {figure.name} " in ours.text
    if promtool := shutil.which("promtool"):
        done = subprocess.run(
            [promtool, "check", "metrics"],
            input=ours.text,
            capture_output=True,
            text=True,
            check=False,
            timeout=BOUND_S,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_rules_see_what_breaks_them() -> None:
    page = "# HELP x_ms x\n# TYPE x_ms gauge\nx_ms 1\n# HELP y x\n# TYPE y counter\ny 1\n"
    page += "# TYPE z_gauge gauge\nz_gauge 1\nz_gauge 2\n"
    faults = [fault.partition(":")[0] for fault in broken_rules(page)]
    assert faults == ["x_ms", "y", "z_gauge", "z_gauge", "z_gauge"]


def test_an_awake_engines_own_figures_carry_the_models_name(rig: Rig) -> None:
    rig.chat(CHAT).raise_for_status()
    page = Page(rig)
    (running,) = page.of("vllm:num_requests_running")
    assert running.labels == {"model": CHAT, "model_name": CHAT, "engine": "0"}
    assert page.value("vllm:request_success_total", model=CHAT) == rig.stats(CHAT)["completed"]
    assert page.value("vllm:time_to_first_token_seconds_bucket", model=CHAT, le="+Inf") > 0
    assert page.value("vllama_engine_scrape_success", model=CHAT) == 1
    assert not [name for name in page.families if name.endswith("_created")]
    assert "vllm:" not in Page(rig, "?engines=0").text
    assert rig.stats(CHAT)["scrapes"] == 1


def test_lines_that_are_none_do_not_break_the_page(make_rig) -> None:
    rig = make_rig("broken_metrics")
    rig.chat(CHAT).raise_for_status()
    for accept in ("text/plain", OPEN_METRICS):
        page = Page(rig, Accept=accept)
        (sample,) = page.of("vllm:num_requests_waiting")
        assert sample.labels == {"model": CHAT, "exported_model": "theirs", "model_name": 'a"model="}'}
        assert sample.value == 7
        assert page.value("no_type_at_all", model=CHAT) == 1.5


def test_a_sleeper_is_never_asked_and_a_scrape_is_no_use(make_rig) -> None:
    rig = make_rig(env={"VLLAMA_UNLOAD_TIMEOUT": "1000"})
    rig.chat(CHAT).raise_for_status()
    assert wait_until(lambda: rig.view(CHAT)["footprint_bytes"] > 0, BOUND_S)  # the last that a start tells
    before = rig.view(CHAT)
    Page(rig)
    assert rig.view(CHAT) == before  # last_used too
    rig.command("sleep", CHAT, level=1).raise_for_status()
    page = Page(rig)
    assert page.of("vllama_engine_scrape_success") == []
    assert "vllm:" not in page.text
    stats = rig.stats(CHAT)
    assert (stats["scrapes"], stats["scrapes_while_asleep"], stats["wakes"]) == (1, 0, 0)
    kinds = rig.kinds(CHAT)
    Page(rig)
    assert rig.kinds(CHAT) == kinds  # nothing was told to anybody


def test_a_scrape_under_way_hinders_no_sleep_and_is_cut_before_it(make_rig) -> None:
    rig = make_rig("gated_metrics", env={"VLLAMA_METRICS_TIMEOUT_S": "60"})
    rig.chat(CHAT).raise_for_status()
    pages: list[Page] = []
    asking = Thread(target=lambda: pages.append(Page(rig)))
    asking.start()
    rig.waits_at(CHAT, "metrics")
    assert rig.view(CHAT)["in_flight"] == 0
    rig.command(
        "sleep", CHAT, level=1
    ).raise_for_status()  # nobody opens the gate: it does not wait for the scrape
    asking.join(BOUND_S)
    assert not asking.is_alive()
    assert pages[0].of("vllama_engine_scrape_success") == []
    stats = rig.stats(CHAT)
    assert (stats["scrapes"], stats["scrapes_cut"], stats["scrapes_while_asleep"], stats["sleeps"]) == (
        1,
        1,
        0,
        1,
    )


def test_an_engine_that_does_not_answer_costs_only_its_own_figures(make_rig) -> None:
    rig = make_rig(f"{CHAT}:gated_metrics", env={"VLLAMA_METRICS_TIMEOUT_S": "0.3"})
    rig.chat(CHAT).raise_for_status()
    rig.command("start", EMBED).raise_for_status()
    page = Page(rig)
    assert page.value("vllama_engine_scrape_success", model=CHAT) == 0
    assert "vllama_engine_scrape_success" in page.text
    assert {s.labels["model"] for s in page.of("vllm:num_requests_running")} <= {EMBED}
    assert page.value("vllama_model_phase", model=CHAT, phase="awake") == 1
    assert rig.chat(CHAT).status_code == 200


def test_readers_who_come_at_once_share_a_round(make_rig) -> None:
    rig = make_rig("gated_metrics", env={"VLLAMA_METRICS_TIMEOUT_S": "60"})
    rig.chat(CHAT).raise_for_status()
    threads = [
        Thread(target=lambda: httpx.get(f"{rig.server.url}/metrics", timeout=BOUND_S)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    rig.waits_at(CHAT, "metrics")
    rig.let(CHAT, "metrics")
    for thread in threads:
        thread.join(BOUND_S)
    assert rig.stats(CHAT)["scrapes"] <= 6
    assert not any(thread.is_alive() for thread in threads)


def test_it_is_an_operators_route(make_rig) -> None:
    rig = make_rig(env={"VLLAMA_API_KEY": "data", "VLLAMA_CONTROL_KEY": "control"})

    def status(key: str = "", **headers: str) -> int:
        return rig.http.get(
            "/metrics", headers=headers | ({"Authorization": f"Bearer {key}"} if key else {})
        ).status_code

    assert [status(), status("data"), status("control")] == [401, 401, 200]
    assert status("control", Host="evil.example") == 403
    assert status("control", Origin="https://evil.example") == 403
    assert rig.http.get("/metrics?engines=2", headers={"Authorization": "Bearer control"}).status_code == 400
    assert rig.http.post("/metrics", headers={"Authorization": "Bearer control"}).status_code == 405


def test_what_workers_serve_is_counted_with_the_rest(make_rig) -> None:
    rig = make_rig(env={"VLLAMA_WORKERS": "2"})
    for _ in range(6):
        with httpx.Client(
            base_url=rig.server.url, trust_env=False, timeout=BOUND_S
        ) as one:  # any of them may take it
            one.post("/v1/chat/completions", json=chat_body(CHAT)).raise_for_status()
    page = counted(rig, 6)
    assert page.value("vllama_http_requests_total", model=CHAT, status="200") == 6
    assert sum(s.value for s in page.of("vllama_wait_seconds_count", model=CHAT)) == 6
    assert page.value("vllama_engine_scrape_success", model=CHAT) == 1


def test_names_that_are_none_make_no_series(rig: Rig) -> None:
    for number in range(20):
        assert rig.chat(f"no/such-{number}").status_code == 404
    page = counted(rig, 20)
    assert {s.labels["model"] for s in page.samples if "model" in s.labels} == {""}
    assert page.value("vllama_http_requests_total", model="", status="404") == 20
