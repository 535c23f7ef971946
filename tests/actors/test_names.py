"""Which model a name means."""

import pytest

from vllama.config import ModelConfig
from vllama.names import Names, Route

IDS = ("Qwen/Qwen3-0.6B", "BAAI/bge-m3", "one/twin", "two/Twin", "gpt2", "fine/small")
CONFIGS = {
    "Qwen/Qwen3-0.6B": ModelConfig(aliases=("small", "one/twin", "bge-m3"), lora={"sql": "/adapters/sql"}),
    "not/there": ModelConfig(aliases=("ghost",)),
}
NAMES = Names(IDS, CONFIGS)


@pytest.mark.parametrize(
    ("name", "model", "served"),
    [
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("one/twin", "one/twin", "one/twin"),  # an exact id is stronger than an alias,
        ("bge-m3", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),  # and an alias than the part after a slash
        ("small", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("qwen/QWEN3-0.6b", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),  # clients of Ollama write in small letters
        ("SQL", "Qwen/Qwen3-0.6B", "sql"),
        ("BGE-M3", "BAAI/bge-m3", "BAAI/bge-m3"),
        ("qwen3-0.6b", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("GPT2", "gpt2", "gpt2"),
        ("sql", "Qwen/Qwen3-0.6B", "sql"),  # an adapter keeps its name
    ],
)
def test_a_name_means_one_model(name: str, model: str, served: str) -> None:
    assert NAMES.find(name) == Route(model, served)


@pytest.mark.parametrize("name", ["twin", "Twin", "other/Qwen3-0.6B", "ghost", "not/there", "", "/", "0.6B"])
def test_what_is_ambiguous_or_unknown_means_none(name: str) -> None:
    assert NAMES.find(name) is None


def test_an_ambiguous_name_is_told_all_that_it_may_be() -> None:
    message = NAMES.unknown("twin", "/hub").message
    assert "one/twin" in message
    assert "two/Twin" in message
    assert "ambiguous" in message


@pytest.mark.parametrize(
    ("name", "near"),
    [("qwen/qwen3-0.6b", "Qwen/Qwen3-0.6B"), ("Qwen/Qwen3-0.6", "Qwen/Qwen3-0.6B"), ("smal", "small")],
)
def test_an_unknown_name_is_told_the_nearest(name: str, near: str) -> None:
    error = NAMES.unknown(name, "/hub")
    assert near in error.message
    assert error.status_hint == 404


def test_a_name_near_to_none_is_told_where_models_come_from() -> None:
    assert "in /hub; `vllama pull zzz`" in NAMES.unknown("zzz", "/hub").message
    assert "`vllama pull 'a; b'`" in NAMES.unknown("a; b", "/my hub").message


def test_a_name_of_any_length_is_told_in_short() -> None:
    for name in ("x" * 100_000, "org/" + "Twin" * 25_000, "a/" * 300 + "twin"):
        error = NAMES.unknown(name, "/hub")
        assert name[:200] in error.message
        assert f"({len(name)} characters)" in error.message
        assert max(len(error.message), len(error.model or "")) < 400


def test_a_model_whose_revision_is_not_there_is_told_which_one_it_is() -> None:
    names = Names(("gpt2",), {"gpt2": ModelConfig(revision="v1"), "org/m": ModelConfig(revision="v-2")})
    assert names.find("org/m") is None
    message = names.unknown("org/m", "/hub").message
    assert "its revision v-2, as models.yaml says, which is not (whole) in /hub" in message
    assert "`vllama pull org/m --revision v-2`" in message
    assert "revision" not in names.unknown("org/n", "/hub").message
