"""Explanations are folds of the journal: who waited for what, who went, who was spared; in words and as data."""

import re
import time
from typing import Any

import pytest

from tests.simulation.world import World
from vllama.actors.core import broker_events as bk
from vllama.actors.core import events as ev
from vllama.actors.core.messages import Phase, Refusal
from vllama.actors.explain import explained, read
from vllama.actors.record import Record

GIB = 2**30
GPU = ("GPU-1",)
T0 = 1_700_000_000.0


class Story:
    """Records as a journal has them; `at` seconds after T0."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(self, at: float, actor: str, *events: Any) -> None:
        for event in events:
            self.records.append(Record(len(self.records) + 1, T0 + at, actor, ("Test", 0), event))

    def told(self, now: float = 100.0, **about: Any) -> list[str]:
        """The words, without their time of day."""
        rows = explained(self.records, T0 + now, names={"GPU-1": "cuda:0"}, **about)
        clock = time.strftime("%H:%M:%S ", time.localtime(rows[0]["at"])) if rows else ""
        assert not rows or rows[0]["words"].startswith(clock)
        return [row["words"].split(" ", 1)[1] for row in rows]


def lease(story: Story, at: float, model: str, size: float, number: int = 1) -> None:
    bytes_ = int(size * GIB)
    story.add(at, model, ev.LeaseRequested(number, bytes_, fresh=True), ev.PhaseChanged(Phase.QUEUED, at))
    story.add(at, "broker", bk.LeaseQueued(model, number, bytes_, GIB, GPU, True, at))


def granted(story: Story, at: float, model: str, size: float, number: int = 1) -> None:
    story.add(at, "broker", bk.LeaseBooked(model, number, int(size * GIB), GPU))
    story.add(at, model, ev.LeaseHeld(number, int(size * GIB), GPU), ev.SlotRequested(number, "start"))
    story.add(at, "broker", bk.SlotQueued(model, number, "start", GPU))


def up(story: Story, at: float, ready: float, model: str, number: int = 1) -> None:
    story.add(at, "broker", bk.SlotBooked(model, number))
    story.add(at, model, ev.SlotHeld(number), ev.PhaseChanged(Phase.STARTING, at))
    story.add(ready, model, ev.SlotDropped(number), ev.PhaseChanged(Phase.AWAKE, ready))
    story.add(ready, "broker", bk.SlotFreed(model, number))


@pytest.fixture
def story() -> Story:
    """b is awake and idle since 10; q waits from 50 on and gets its room at 52."""
    story = Story()
    lease(story, 0, "b", 5)
    granted(story, 0, "b", 5)
    up(story, 0, 10, "b")
    story.add(50, "q", ev.AskQueued(7, "first"))
    lease(story, 50, "q", 6)
    story.add(50.5, "q", ev.AskQueued(8, "second"))
    spared = (("l", "busy", 3), ("p", "pinned", 0))
    used = (("b", T0 + 10, 0), ("l", T0 + 49, 3))
    story.add(51, "broker", bk.EvictionOrdered("b", 1, 2, "q", 3 * GIB, used, 51, 1, "GPU-1", spared, 4))
    return story


WORDS = (
    "q waited 9.0 s for 2 requests: cuda:0 was 3.0 GiB short; b (idle 41.0 s) was put to sleep at level 2, it freed 4.0 GiB "
    "after 1.0 s; spared: l (3 in flight), p (pinned), 4 more; memory after 2.0 s; started in 7.0 s"
)


def finish(story: Story) -> None:
    story.add(51.5, "broker", bk.LeaseReturning("b", 1, GIB, T0 + 10, 51.5), bk.LeaseFreed("b", 1, GIB))
    story.records[-1] = story.records[-1]._replace(at=T0 + 52)
    granted(story, 52, "q", 6)
    up(story, 52, 59, "q")
    story.add(59, "q", ev.AskAdmitted(7, 59, "cold"), ev.AskAdmitted(8, 59, "cold"))


def test_a_wait_says_what_was_short_who_went_and_who_was_spared(story: Story) -> None:
    finish(story)
    assert story.told(model="q")[0] == WORDS
    (row,) = [r for r in explained(story.records, T0 + 100, model="q") if r["kind"] == "wait"]
    assert (row["outcome"], row["how"], row["requests"], row["memory_s"]) == (
        "awake",
        "cold",
        ["first", "second"],
        2.0,
    )
    assert row["evictions"][0]["freed_bytes"] == 4 * GIB


def test_the_victims_side_of_it(story: Story) -> None:
    finish(story)
    assert story.told(model="b")[-1] == (
        "b was put to sleep at level 2 for q: cuda:0 was 3.0 GiB short; it had been idle for 41.0 s; it freed 4.0 GiB "
        "after 1.0 s; spared: l (3 in flight), p (pinned), 4 more"
    )


def test_a_request_by_its_id_and_the_wait_that_it_was_part_of(story: Story) -> None:
    assert story.told(request="second")[0] == "request second for q has waited 49.5 s so far"
    finish(story)
    story.add(61, "q", ev.AskEnded(8, 61), ev.AskAdmitted(9, 61, "warm", "third"))
    assert story.told(request="second") == [
        "request second for q waited 8.5 s (cold); it ended 2.0 s later",
        WORDS,
    ]
    assert story.told(request="third") == [
        "request third for q was admitted at once: the model was awake; it still runs"
    ]
    assert story.told(request="fourth") == []


def test_a_wait_that_goes_on_says_why_nobody_can_go(story: Story) -> None:
    spared = (("b", "busy", 2), ("p", "pinned", 0))
    story.add(52, "broker", bk.EvictionCancelled("b", 1))
    story.add(53, "broker", bk.RoomSought("q", 1, "GPU-1", 2 * GIB, spared, 0, 53))
    words = story.told(now=60, model="q")[0]
    assert words.startswith("q has waited 10.0 s so far for 2 requests: ")
    assert "b (idle 41.0 s) was to be put to sleep at level 2, which was called off" in words
    assert words.endswith("cuda:0 was 2.0 GiB short and nobody could go: b (2 in flight), p (pinned)")
    story.add(54, "broker", bk.RoomSought("q", 1, "GPU-1", 2 * GIB, (), 0, 54))
    assert (
        "no model of vllama's was there to go: vllama's own zygote, or other programs, hold it (the last of 2 such moments)"
        in story.told(model="q")[0]
    )


def test_refusals_of_one_moment_are_told_together(story: Story) -> None:
    refusal = Refusal("no_memory", "no memory for q\nand a log")
    story.add(70, "q", ev.LeaseDropped(1), ev.AskRefused(7, refusal), ev.AskRefused(8, refusal))
    story.add(70, "q", ev.PhaseChanged(Phase.STOPPED, 70))
    story.add(71, "q", ev.AskRefused(9, refusal, "at once"))
    wait, _, both, alone = story.told(model="q")
    assert wait.startswith("q waited 20.0 s for 2 requests and was refused: cuda:0 was 3.0 GiB short")
    assert both == "2 requests for q (first, second) refused (no_memory): no memory for q"
    assert alone == "1 request for q (at once) refused (no_memory): no memory for q"
    assert story.told(request="first")[-1] == wait
    assert "was refused after 20.0 s (no_memory): no memory for q" in story.told(request="first")[0]


def test_turns_and_those_before_it_are_named(story: Story) -> None:
    lease(story, 51, "late", 2)
    granted(story, 52, "q", 6)
    story.add(52, "broker", bk.SlotBooked("q", 1))
    granted(story, 53, "late", 2)
    up(story, 55, 57, "late")
    assert story.told(model="late") == [
        "late came up in 6.0 s: before it q waited for memory; memory after 2.0 s; its turn on cuda:0 came after q, "
        "2.0 s later; started in 2.0 s"
    ]


def test_who_leaves_ends_the_wait(story: Story) -> None:
    story.add(60, "q", ev.AskEnded(7, 60))
    story.add(61, "q", ev.AskEnded(8, 61))
    assert story.told(model="q")[0].startswith("q waited 11.0 s for 2 requests, then nobody waited any more")
    assert story.told(request="first")[0] == "request first for q left after 10.0 s without an answer"


def test_missing_beginnings_are_not_made_up(story: Story) -> None:
    finish(story)
    for first in range(len(story.records)):
        for row in explained(story.records[first:], T0 + 100):
            assert row["words"]


@pytest.mark.parametrize("seed", range(20))
def test_every_eviction_and_refusal_of_a_history_is_explained(seed: int) -> None:
    world = World(seed)
    world.run(asks=30, until_s=60.0)
    records = list(world.journal.records())
    ledger = read(records)
    kinds = [type(record.event) for record in records]
    told = [type(episode).__name__ for episode in ledger.episodes]
    assert told.count("Eviction") == kinds.count(bk.EvictionOrdered)
    assert sum(e.asks for e in ledger.episodes if type(e).__name__ == "Refused") == kinds.count(ev.AskRefused)
    waits = [e for e in ledger.episodes if type(e).__name__ == "Wait"]
    assert sum(wait.asks for wait in waits) == kinds.count(ev.AskQueued)  # type: ignore[union-attr]
    for row in explained(records, world.now, limit=1000):
        assert re.match(r"\d\d:\d\d:\d\d \S", row["words"])
