"""A model asked for what its kind does not do: told so at once, by name, and no engine is started for it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api.caches import CHAT, EMBED, RERANK
from tests.api.rig import Rig, chat_body, error_of
from vllama.actors.catalog import Catalog
from vllama.api.kinds import unserved
from vllama.api.routes import FORM_PATHS, JSON_PATHS
from vllama.config import ModelConfig
from vllama.host.host import ModelFiles


@pytest.mark.parametrize(
    ("kind", "path", "use"),
    [
        ("embedding", "/v1/chat/completions", "/v1/embeddings"),
        ("embedding", "/v1/completions", "/v1/embeddings"),
        ("rerank", "/v1/messages", "/v1/rerank"),
        ("rerank", "/v1/embeddings", "/v1/score"),
        ("chat", "/v1/embeddings", "/v1/chat/completions"),
        ("chat", "/rerank", "/v1/chat/completions"),
    ],
)
def test_what_a_kind_surely_lacks_is_a_404_that_names_what_to_use(kind: str, path: str, use: str) -> None:
    error = unserved(kind, path, "org/m")
    assert error is not None
    assert (error.status_hint, error.type, error.model) == (404, "invalid_request_error", "org/m")
    for word in ("org/m", path, use):
        assert word in error.message


@pytest.mark.parametrize("path", [*JSON_PATHS, *FORM_PATHS])
def test_of_what_is_not_sure_the_engine_is_asked(path: str) -> None:
    assert unserved("other", path, "m") is None
    assert unserved("", path, "m") is None
    if path in ("/v1/embeddings", "/v1/score", "/classify", "/pooling", "/tokenize", "/v1/rerank"):
        assert unserved("embedding", path, "m") is None
    if path in ("/v1/score", "/classify", "/rerank", "/pooling", "/detokenize"):
        assert unserved("rerank", path, "m") is None
    if path.startswith(("/v1/chat", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/audio", "/inf")):
        assert unserved("chat", path, "m") is None


class _NoHost:
    """A catalog asks it nothing until it looks."""


@pytest.mark.parametrize(
    ("extra", "kind"),
    [({}, "chat"), ({"seed": 1}, "chat"), ({"runner": "pooling"}, ""), ({"convert": "embed"}, "")],
)
def test_an_entry_that_makes_another_kind_of_a_model_leaves_nothing_sure(
    extra: dict[str, object], kind: str, tmp_path: Path
) -> None:
    class Config:
        models_file = tmp_path / "models.yaml"

    configs = {"m": ModelConfig(extra_args=extra)}
    catalog = Catalog(_NoHost(), Config(), configs, lambda _: None, lambda _: None)
    assert catalog.kind_of("m") == ""  # not in the cache
    catalog.files = {"m": ModelFiles("m", "/none", "0", "chat", "X", 1, 1, {}, 0.0)}
    assert catalog.kind_of("m") == kind


def test_through_the_server_nothing_is_started_for_it(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    for model, path in ((EMBED, "/v1/chat/completions"), (RERANK, "/v1/embeddings"), (CHAT, "/v1/rerank")):
        answer = rig.http.post(path, json=chat_body(model))
        assert answer.status_code == 404
        error = error_of(answer)
        assert error["code"] == "route_unserved"
        assert model in error["message"]
        assert rig.kinds(model) == []
    assert rig.http.post("/v1/embeddings", json={"model": EMBED, "input": "a"}).status_code == 200
    assert rig.chat(CHAT).status_code == 200
