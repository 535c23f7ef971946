"""The recipes of one engine's control side against every way in which a fake engine fails them."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import httpx
import pytest

from tests.api.caches import CHAT, EMBED, RERANK
from tests.host.local_helpers import BOUND_S, Bench, with_bench
from vllama.host.engine import EngineFault
from vllama.host.probe import Reference, mismatch, read_reference


@pytest.mark.parametrize("model", [CHAT, EMBED, RERANK])
def test_every_kind_sleeps_and_wakes_with_the_same_answer(tmp_path: Path, model: str) -> None:
    async def story(bench: Bench) -> None:
        proc, engine = await bench.awake(model)
        for level in (1, 2):
            assert set(await engine.sleep(level, BOUND_S)) == {"sleep", "is_sleeping", "health"}
            steps = await engine.wake(level, BOUND_S)
            assert "probe" in steps
        assert {"wake_weights", "reload_weights", "wake_kv_cache"} <= set(steps)
        stats = await bench.stats(proc)
        assert (stats["sleeps"], stats["reloads"], stats["requests_while_asleep"]) == (2, 1, 0)

    with_bench(tmp_path, story)


@pytest.mark.parametrize("model", [CHAT, EMBED, RERANK])
def test_weights_that_were_not_read_again_are_noticed(tmp_path: Path, model: str) -> None:
    async def story(bench: Bench) -> None:
        _, engine = await bench.awake(model)
        await engine.sleep(2, BOUND_S)
        with pytest.raises(EngineFault, match=r"probe mismatch after level-1 wake"):
            await engine.wake(1, BOUND_S)  # the wrong recipe, as if level 2 had been forgotten

    with_bench(tmp_path, story)


@pytest.mark.parametrize(
    ("fault", "level", "reason"),
    [
        ("fail_wake", 2, "POST /wake_up?tags=weights answered 500"),
        ("fail_wake", 1, "POST /wake_up answered 500"),
        ("fail_reload", 2, "POST /collective_rpc answered 500"),
        ("garbage", 2, "probe mismatch"),
        ("hang_wake", 1, "no answer to POST /wake_up"),
        ("die_on_first_request", 2, "no answer to POST /v1/completions"),
    ],
)
def test_a_wake_that_fails_says_where(tmp_path: Path, fault: str, level: int, reason: str) -> None:
    async def story(bench: Bench) -> None:
        _, engine = await bench.awake()
        await engine.sleep(level, BOUND_S)
        bench.faults.write_text(fault)
        with pytest.raises(EngineFault) as caught:
            await engine.wake(level, 0.5 if fault == "hang_wake" else BOUND_S)
        assert caught.value.reason.startswith(reason)

    with_bench(tmp_path, story)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("fail_sleep", "POST /sleep?level=2 answered 500"),
        ("sleep_lies", "still awake after /sleep"),
        ("hang_sleep", "no answer to POST /sleep?level=2"),
    ],
)
def test_a_sleep_that_fails_says_how(tmp_path: Path, fault: str, reason: str) -> None:
    async def story(bench: Bench) -> None:
        _, engine = await bench.awake()
        bench.faults.write_text(fault)
        with pytest.raises(EngineFault) as caught:
            await engine.sleep(2, 0.5 if fault == "hang_sleep" else BOUND_S)
        assert caught.value.reason.startswith(reason)

    with_bench(tmp_path, story)


def test_an_engine_that_says_200_and_dies_of_sleep_is_noticed(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        proc, engine = await bench.awake()
        body = {"prompt": "x", "user": "gate:g", "max_tokens": 5}
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(_broken(bench.fetch(proc, "POST", "/v1/completions", json=body)))
            await bench.fetch(proc, "GET", "/fake/gate?name=g")
            with pytest.raises(EngineFault, match="no answer to GET /is_sleeping"):
                await engine.sleep(2, BOUND_S)  # with a request running, which vllama never does
            assert await running
        assert (await bench.exited(proc.launch_id)).code == -6

    with_bench(tmp_path, story)


async def _broken(request: Awaitable[object]) -> bool:
    try:
        await request
    except httpx.TransportError:
        return True
    return False


def test_a_start_that_fails_at_the_first_request_fails(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.faults.write_text("die_on_first_request")
        proc, engine = await bench.launch()
        await engine.ready(BOUND_S, BOUND_S)
        with pytest.raises(EngineFault, match="no answer to POST /v1/completions"):
            await engine.warm_up(BOUND_S)
        assert "Unsupported CPU attention" in (await bench.exited(proc.launch_id)).log_tail

    with_bench(tmp_path, story)


def test_a_start_past_its_bound_is_given_up(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.faults.write_text("hang_at_start")
        _, engine = await bench.launch()
        with pytest.raises(EngineFault, match="start timeout"):
            await engine.ready(0.2, BOUND_S)

    with_bench(tmp_path, story)


@pytest.mark.slow
def test_a_start_that_stands_still_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllama.host.engine.READY_POLL_S", 1.0)

    async def story(bench: Bench) -> None:
        bench.faults.write_text("hang_at_start")
        _, engine = await bench.launch()
        with pytest.raises(EngineFault, match="start quiet"):
            await engine.ready(BOUND_S, 1.0)

    with_bench(tmp_path, story)


def test_a_start_that_exits_faults_with_exited(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.faults.write_text("die_at_start")
        _, engine = await bench.launch()
        with pytest.raises(EngineFault) as caught:
            await engine.ready(BOUND_S, BOUND_S)
        assert caught.value.reason == "exited"

    with_bench(tmp_path, story)


TOKEN = Reference("/v1/completions", " Paris", {" Paris": -0.5, " the": -1.0})


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (TOKEN, TOKEN, ""),
        (TOKEN, Reference("/v1/completions", " the", {" the": -0.6, " Paris": -0.7}), ""),
        (TOKEN, Reference("/v1/completions", " Paris", {" Paris": -0.76}), "log-probability"),
        (TOKEN, Reference("/v1/completions", " cat", {" cat": -9.0}), "first token ' cat'"),
        (TOKEN, None, "not answered any more"),
        (
            Reference("/v1/completions", "", {"": -1.0}),
            Reference("/v1/completions", "x", {"x": -1.0}),
            "first token",
        ),
        (
            Reference("/v1/embeddings", numbers=(1.0, 0.0)),
            Reference("/v1/embeddings", numbers=(2.0, 0.01)),
            "",
        ),
        (
            Reference("/v1/embeddings", numbers=(1.0, 0.0)),
            Reference("/v1/embeddings", numbers=(1.0, 0.1)),
            "cosine",
        ),
        (
            Reference("/v1/embeddings", numbers=(1.0, 0.0)),
            Reference("/v1/embeddings", numbers=(0.0, 0.0)),
            "cosine",
        ),
        (Reference("/score", numbers=(0.5,)), Reference("/score", numbers=(0.509,)), ""),
        (Reference("/score", numbers=(0.5,)), Reference("/score", numbers=(0.52,)), "off by 0.02"),
        (Reference("/score", numbers=(0.5,)), Reference("/classify", numbers=(0.5,)), "not answered"),
    ],
)
def test_when_two_answers_are_the_same(before: Reference, after: Reference | None, said: str) -> None:
    found = mismatch(before, after)
    assert said in found
    assert bool(said) == bool(found)


def test_an_answer_that_is_no_number_is_no_reference() -> None:
    with pytest.raises(ValueError, match="finite"):
        read_reference("/score", {"data": [{"score": float("nan")}]})
    with pytest.raises(ValueError, match="no numbers"):
        read_reference("/v1/embeddings", {"data": [{"embedding": []}]})
