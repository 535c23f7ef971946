"""Control endpoints that change which models there are, over a server: pull, delete, copy."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import wait_until

from tests.api.caches import CHAT, EMBED, make_cache
from tests.api.rig import BOUND_S, Rig, error_in, error_of
from tests.fakes.fake_hub import FakeHub, model_files

NEW = "tiny/new"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as found:
        yield found


@pytest.fixture
def server(vllama_server: Callable[..., Any], hub: FakeHub, tmp_path: Path) -> Iterator[Rig]:
    """A server with a cache of its own, which it may change."""
    env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    rig = Rig(vllama_server(make_cache(tmp_path / "hub"), fake=True, env=env), tmp_path / "faults")
    yield rig
    rig.close()


def ids(rig: Rig) -> list[str]:
    return [card["id"] for card in rig.http.get("/v1/models").json()["data"]]


def test_a_pulled_model_is_listed_and_serves(server: Rig, hub: FakeHub) -> None:
    commit = hub.put(NEW, model_files())
    answer = server.command("pull", NEW)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[0] == {"status": "pulling manifest"}
    assert set(lines[1]) == {"status", "file", "digest", "total", "completed"}
    assert (lines[-1]["status"], lines[-1]["revision"]) == ("success", commit)
    assert NEW in ids(server)
    assert server.chat(NEW).status_code == 200


def test_a_pull_ends_with_its_reader_and_goes_on_with_the_next(
    server: Rig, hub: FakeHub, tmp_path: Path
) -> None:
    hub.put(NEW, model_files(weights_bytes=300_000))
    hub.hold("model.safetensors", 100_000)
    with server.http.stream("POST", "/control/pull", json={"model": NEW}) as answer:
        lines = answer.iter_lines()
        next(lines)
        hub.until_held("model.safetensors")
        assert wait_until(lambda: bytes_there(tmp_path) >= 100_000, BOUND_S)
    assert wait_until(lambda: not fetches(server), BOUND_S)
    assert NEW not in ids(server)
    assert server.command("pull", NEW).text.splitlines()[-1].startswith('{"status":"success"')
    assert "bytes=100000-" in hub.ranges


def bytes_there(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("**/*.incomplete"))


def fetches(rig: Rig) -> list[str]:
    """The pulls' processes."""
    children = Path(f"/proc/{rig.server.pid}/task/{rig.server.pid}/children").read_text().split()
    commands = [Path(f"/proc/{pid}/cmdline") for pid in children]
    return [text for path in commands if path.exists() and "vllama.host.fetch" in (text := path.read_text())]


def test_a_server_that_ends_ends_its_pulls(server: Rig, hub: FakeHub) -> None:
    """The fixture sees that it exits 0 and leaves no process."""
    hub.put(NEW, model_files(weights_bytes=300_000))
    hub.hold("model.safetensors", 100_000)
    with server.http.stream("POST", "/control/pull", json={"model": NEW}) as answer:
        lines = answer.iter_lines()
        next(lines)
        hub.until_held("model.safetensors")
        server.server.end()
        assert "shutting down" in error_in(json.loads(list(lines)[-1]))["message"]


def test_a_pull_that_cannot_be_says_why_in_its_last_line(server: Rig) -> None:
    last = json.loads(server.command("pull", "tiny/none").text.splitlines()[-1])
    assert error_in(last)["code"] == "model_not_found"
    refused = server.command("pull", "../etc/passwd")
    assert (refused.status_code, error_of(refused)["code"]) == (400, "bad_request")


def test_a_model_is_deleted_when_it_does_not_run(server: Rig) -> None:
    server.chat(CHAT).raise_for_status()
    refused = server.command("delete", CHAT)
    assert (refused.status_code, error_of(refused)["code"]) == (409, "model_in_use")
    server.command("sleep", CHAT).raise_for_status()
    assert server.command("delete", CHAT).status_code == 409  # a sleeper reads its weights again
    done = server.command("delete", CHAT, stop=True)
    assert done.status_code == 200
    assert done.json() == {"model": CHAT, "alias": "", "freed_bytes": done.json()["freed_bytes"]}
    assert done.json()["freed_bytes"] > 4096
    assert CHAT not in ids(server)
    assert server.chat(CHAT).status_code == 404  # though its instance is known
    assert server.command("delete", CHAT).status_code == 404


def test_a_copy_is_one_more_name_and_deleting_it_leaves_the_model(server: Rig) -> None:
    body = {"source": CHAT, "destination": "mine:v1"}
    assert server.http.post("/control/copy", json=body).json() == {"model": CHAT, "alias": "mine:v1"}
    assert server.http.post("/control/copy", json=body).status_code == 200
    assert "aliases" in (server.server.config_dir / "models.yaml").read_text()
    assert server.chat("mine:v1").status_code == 200
    other = server.http.post("/control/copy", json=body | {"source": EMBED})
    assert (other.status_code, error_of(other)["code"]) == (400, "config_error")
    taken = server.http.post("/control/copy", json={"source": CHAT, "destination": EMBED})
    assert "a model of its own" in error_of(taken)["message"]
    assert server.command("delete", "mine:v1").json() == {"model": CHAT, "alias": "mine:v1", "freed_bytes": 0}
    assert server.chat("mine:v1").status_code == 404
    assert CHAT in ids(server)


@pytest.mark.parametrize("verb", ["pull", "delete", "copy"])
def test_a_page_of_another_site_can_do_none_of_it(rig: Rig, verb: str) -> None:
    body = {"model": CHAT} if verb != "copy" else {"source": CHAT, "destination": "x"}
    path = f"/control/{verb}"
    foreign = rig.http.post(path, json=body, headers={"Origin": "https://evil.example"})
    rebound = rig.http.post(path, json=body, headers={"Host": "evil.example"})
    form = rig.http.post(path, content=json.dumps(body), headers={"Content-Type": "text/plain"})
    assert [foreign.status_code, rebound.status_code, form.status_code] == [403, 403, 415]
    assert CHAT in ids(rig)
