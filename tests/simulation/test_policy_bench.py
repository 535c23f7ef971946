"""The bench of policies: recordings are read as they come, the clairvoyant rule is the plain one, verdicts see what is missed."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.policy import runs, table, traces
from bench.policy.baselines import Clairvoyant, Future
from bench.policy.figures import SIZES
from bench.policy.traces import AZURE, Trace
from bench.policy.verdicts import bound_s, contended, verdicts
from vllama.actors.core import messages as msg
from vllama.actors.core.broker_state import BrokerState, Lease
from vllama.actors.core.eviction import Holder

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BOOKS = BrokerState(msg.BrokerPolicy())
WANTS = Lease("m09", 1, 9, 9, (), True, "waiting")


# --- recordings -------------------------------------------------------------------------------------------------------


def recording(folder: Path, *lines: str, head: str = HEAD, name: str = "two-hot.mine.csv") -> Path:
    path = folder / name
    path.write_text(head + "".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def seconds(count: int) -> list[str]:
    return [f"2024-05-10 00:{at // 60:02}:{at % 60:02}.0000001,100,10" for at in range(count)]


def test_a_recording_of_another_service_is_a_table_of_its_own(tmp_path: Path) -> None:
    """Its name may be that of a trace that is made: its rows are told apart from it."""
    path = recording(tmp_path, *seconds(120))
    names = set(table.rows(path)) - set(table.rows())
    assert names == {
        f"file-two-hot{name.removeprefix('azure')}" for name in table.rows() if name.startswith("azure")
    }
    row = runs.row(table.rows(path)["file-two-hot-6-1"](), "cost")
    assert (row["requests"], row["refused"], row["unserved"]) == (120, 0, 0)


def test_more_models_than_requests_leave_some_without_any(tmp_path: Path) -> None:
    path = recording(tmp_path, *seconds(100))
    row = runs.row(table.rows(path)["file-two-hot-50-8"](), "lru")
    assert (row["requests"], row["models"], row["unserved"]) == (100, 50, 0)


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_times_are_read_with_and_without_a_zone_and_put_in_order(tmp_path: Path) -> None:
    path = recording(
        tmp_path,
        *seconds(100),
        "2024-05-10 00:03:00+00:00,7,1",
        "2024-05-10T00:02:30.25Z,8,1",
        "2024-05-10 02:02:40.1234567+02:00,9,1",
    )
    found = traces.recorded(path)
    assert [(round(at, 2), context) for at, context, _ in found[-3:]] == [
        (150.25, 8),
        (160.12, 9),
        (180.0, 7),
    ]


def test_of_a_long_recording_the_first_part_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "RECORDED_MAX", 150)
    assert len(traces.recorded(recording(tmp_path, *seconds(200)))) == 150


@pytest.mark.parametrize(
    ("head", "lines", "said"),
    [
        ("TIMESTAMP,Context,GeneratedTokens\n", seconds(100), "has no column ContextTokens"),
        ("", [], "has no column ContextTokens, GeneratedTokens, TIMESTAMP"),
        (HEAD, seconds(99), "has 99 requests: at least 100 are needed"),
        (HEAD, [*seconds(2), "yesterday,1,1"], "line 4: Invalid isoformat string"),
        (HEAD, [*seconds(1), "2024-05-10 00:00:00,,1"], "line 3: invalid literal"),
        (HEAD, [*seconds(1), "2024-05-10 00:00:00"], "line 3: "),
    ],
)
def test_a_file_that_is_no_recording_is_named_with_its_fault(
    tmp_path: Path, head: str, lines: list[str], said: str
) -> None:
    with pytest.raises(SystemExit, match=said) as raised:
        traces.recorded(recording(tmp_path, *lines, head=head))
    assert "two-hot.mine.csv" in str(raised.value)


def test_the_recording_that_comes_with_it_is_read_as_ever() -> None:
    found = traces.recorded(AZURE)
    assert (len(found), found[0], round(found[-1][0])) == (8819, (0.0, 4808, 10), 3436)


# --- the clairvoyant rule ---------------------------------------------------------------------------------------------


def future() -> Future:
    """m00 is asked for at 10 and 90 s, m01 at 50 s, m02 never; the trace begins at 1000 s of the actors' clock."""
    asked = [(10.0, 0, 1, 1), (50.0, 1, 1, 1), (90.0, 0, 1, 1)]
    return Future(Trace("t", [SIZES["8B"]] * 3, 1, 100.0, asked), base=1000.0)


def holders(*models: str, size: int = 4, in_flight: int = 0) -> list[Holder]:
    return [Holder(model, 1, size, 0.0, in_flight, 2) for model in models]


def gone(idle: list[str], asleep: list[str], short: int, at: float) -> list[str]:
    rule = Clairvoyant(future())
    found = rule.victims(BOOKS, WANTS, holders(*idle), holders(*asleep, size=1), [], short, 1000.0 + at)
    return [holder.model for holder in found]


def test_the_clairvoyant_rule_lets_go_whoever_is_needed_last() -> None:
    assert gone(["m00", "m01", "m02"], [], 4, 0.0) == ["m02"]
    assert gone(["m00", "m01", "m02"], [], 5, 0.0) == ["m02", "m01"]
    assert gone(["m00", "m01"], [], 4, 20.0) == ["m00"]  # its next is at 90 s now
    assert gone(["m00", "m01"], [], 4, 60.0) == ["m01"]  # never again


def test_the_clairvoyant_rule_stops_sleepers_only_where_nobody_is_up_as_lru_does() -> None:
    assert gone(["m00"], ["m02"], 1, 0.0) == ["m00"]
    assert gone([], ["m00", "m01"], 1, 0.0) == ["m01"]


def test_the_clairvoyant_rule_lets_the_busy_one_drain_that_is_needed_last() -> None:
    rule, busy = Clairvoyant(future()), holders("m00", "m01", in_flight=1)
    drained = [rule.busy_victim(BOOKS, WANTS, busy, 1000.0 + at) for at in (0.0, 20.0)]
    assert [holder.model for holder in drained if holder] == ["m01", "m00"]


# --- verdicts ---------------------------------------------------------------------------------------------------------


def found(name: str = "t", load: float = 0.1, **means: float) -> list[dict]:
    same = {"drain_max_s": 5.0, "switch_max_s": 10.0, "refused": 0, "requests": 9, "unserved": 0}
    return [
        {
            "trace": name,
            "policy": policy.replace("_", "-"),
            "wait_mean_s": mean,
            "wait_p99_s": 1.0,
            "load": load,
        }
        | same
        for policy, mean in means.items()
    ]


def said(rows: list[dict]) -> str:
    return "\n".join(verdicts(rows))


def test_a_row_is_contended_by_what_the_plain_rule_gains_at_a_moderate_load() -> None:
    rows = {row["policy"]: row for row in found(lru=10, clairvoyant=4, foresight=1)}
    assert contended(rows)
    assert not contended({row["policy"]: row for row in found(lru=10, clairvoyant=4.1, foresight=1)})
    assert contended({row["policy"]: row for row in found(lru=10, clairvoyant=4.1, foresight=1)}, "foresight")
    assert not contended({row["policy"]: row for row in found(load=0.81, lru=10, clairvoyant=4)})


def test_a_contended_row_is_missed_by_its_mean_or_by_its_p99() -> None:
    assert "contended by clairvoyant: 1 of 1 rows hold" in said(found(cost=5, lru=10, clairvoyant=4))
    assert "contended by clairvoyant: 0 of 1 rows hold" in said(found(cost=5.1, lru=10, clairvoyant=4))
    rows = found(cost=1, lru=10, clairvoyant=4)
    assert bound_s(rows[0]) == 60 + 5 + 10
    rows[0]["wait_p99_s"] = 75.1
    assert "p99 75 s (at most 75)  MISSED" in said(rows)
    rows = found(cost=1, lru=10, clairvoyant=9)
    rows[0]["wait_p99_s"] = 75.1
    assert "p99 beyond that of a contended row on t (75 s, 75) of the 1 others" in said(rows)


def test_no_baseline_may_be_better_and_references_are_none() -> None:
    rows = found(
        cost=1.03, lru=9, ttl=1, ollama=2, llama_swap=3, clairvoyant=0.1, foresight=0.1, lru_level_1=0.1
    )
    text = said(rows)
    assert "t: mean 1.03 s is 1.03 of ttl's  MISSED" in text
    assert "all rows: 1 means above 1.02" in text
    assert "lru-level-1 has the better mean on t" in text


def test_an_overload_counts_its_refusals() -> None:
    rows = [row | {"share_least": 0.9, "refused": 7} for row in found("overload-1", cost=1, lru=2)]
    assert "7 of 9 refused (at most 32 wait for a model), 0 without an end" in said(rows)
