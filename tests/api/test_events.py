"""The journal as server-sent events, over a real server: resuming, filters, gaps, the end."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from serving import Vllama

from tests.api.caches import CHAT, EMBED


@dataclass
class Event:
    id: str
    kind: str
    data: dict


def parse(lines: Iterator[str]) -> Iterator[Event]:
    fields = {"id": "", "event": "", "data": ""}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields["data"]:
            yield Event(fields["id"], fields["event"], json.loads(fields["data"]))
            fields = {"id": "", "event": "", "data": ""}


def present(http: httpx.Client, query: str, headers: dict | None = None) -> list[Event]:
    """What there is now."""
    answer = http.get(f"/debug/events?follow=0&{query}", headers=headers).raise_for_status()
    assert answer.headers["content-type"].startswith("text/event-stream")
    return list(parse(iter(answer.text.splitlines())))


def stop(http: httpx.Client, model: str) -> None:
    http.post("/control/stop", json={"model": model}).raise_for_status()


@pytest.fixture
def server(vllama_server, fake_cache: Path) -> Vllama:
    return vllama_server(fake_cache, fake=True, env={"VLLAMA_JOURNAL_LIFECYCLE_MAX": "100"})


@pytest.fixture
def http(server: Vllama):
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        yield client


def test_each_event_is_a_record_and_a_reader_resumes_where_it_was(http: httpx.Client):
    stop(http, CHAT)
    stop(http, EMBED)
    events = present(http, "since=0")
    numbers = [int(event.id) for event in events]
    assert numbers == sorted(set(numbers))
    for event in events:
        assert (event.data["seq"], event.data["kind"]) == (int(event.id), event.kind)
    assert {"InstanceCreated", "CommandAnswered"} <= {event.kind for event in events}

    middle = events[len(events) // 2]
    rest = [event.id for event in events if int(event.id) > int(middle.id)]
    assert [event.id for event in present(http, f"since={middle.id}")] == rest
    assert [event.id for event in present(http, "since=0", {"Last-Event-ID": middle.id})] == rest
    assert present(http, "") == []  # from now on, up to now


def test_filters_by_model_and_kind_may_be_repeated(http: httpx.Client):
    stop(http, CHAT)
    stop(http, EMBED)
    actors = lambda query: {event.data["actor"] for event in present(http, query)}  # noqa: E731
    kinds = lambda query: {event.kind for event in present(http, query)}  # noqa: E731
    assert actors(f"since=0&model={CHAT}") == {CHAT}
    assert actors(f"since=0&model={CHAT}&model={EMBED}") == {CHAT, EMBED}
    assert kinds("since=0&kind=CommandAnswered") == {"CommandAnswered"}
    assert kinds("since=0&kind=CommandAnswered&kind=InstanceCreated") == {
        "CommandAnswered",
        "InstanceCreated",
    }
    assert actors(f"since=0&kind=CommandAnswered&model={CHAT}") == {CHAT}
    assert present(http, "since=0&model=none") == []


def test_what_has_left_the_ring_is_announced_as_a_gap(http: httpx.Client):
    for _ in range(60):
        stop(http, CHAT)
    gap, *rest = present(http, "since=1")
    assert (gap.kind, gap.id, gap.data["first"]) == ("gap", "", 2)
    assert gap.data["last"] + 1 == int(rest[0].id)
    assert len(rest) <= 100
    assert [event.kind for event in present(http, f"since={gap.data['last']}")][:1] != ["gap"]


def test_a_reader_follows_and_the_server_ends_it_when_it_ends(http: httpx.Client, server: Vllama):
    with http.stream("GET", f"/debug/events?model={CHAT}&kind=CommandAnswered") as answer:
        events = parse(answer.iter_lines())
        stop(http, EMBED)
        stop(http, CHAT)
        assert next(events).data["actor"] == CHAT
        stop(http, CHAT)
        assert next(events).kind == "CommandAnswered"
        server.end()
        assert list(events) == []


def test_many_readers_that_leave_are_forgotten(http: httpx.Client):
    for _ in range(20):
        with http.stream("GET", "/debug/events?since=0") as answer:
            assert next(parse(answer.iter_lines())).id
    stop(http, CHAT)
    assert present(http, "since=0")


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("since=x", {}),
        ("since=-1", {}),
        ("since=", {}),
        ("since=1", {"Last-Event-ID": "x"}),
        ("follow=maybe", {}),
        (f"since={'9' * 30}", {}),
    ],
)
def test_a_place_that_is_none_is_refused(http: httpx.Client, query: str, headers: dict):
    answer = http.get(f"/debug/events?{query}", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_request"


def test_a_requests_records_carry_its_id_whether_it_waits_or_not(server: Vllama, http: httpx.Client) -> None:
    body = {"model": CHAT, "messages": [{"role": "user", "content": "x"}]}
    for request in ("one that starts it", "one that finds it awake"):
        answer = http.post("/v1/chat/completions", json=body, headers={"X-Request-Id": request})
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, request)
    asked = present(http, "since=0&kind=AskQueued&kind=AskAdmitted")
    assert [(event.kind, event.data["request"]) for event in asked] == [
        ("AskQueued", "one that starts it"),
        ("AskAdmitted", ""),  # its ask's number leads back to where it was queued
        ("AskAdmitted", "one that finds it awake"),
    ]
    assert asked[0].data["ask"] == asked[1].data["ask"]
