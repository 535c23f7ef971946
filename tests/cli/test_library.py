"""`list`, `show`, `pull`, `rm` and `cp`, with a server and on the cache alone."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Vllama, free_port, wait_until

from tests.api.caches import CHAT, EMBED, RERANK, make_cache
from tests.api.rig import Rig
from tests.cli.terminal import Terminal
from tests.fakes.fake_hub import FakeHub, model_files
from vllama.cli import listing

BOUND_S = 60.0
NEW = "tiny/new"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as found:
        yield found


def hub_env(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}


@pytest.fixture
def served(vllama_server: Callable[..., Vllama], hub: FakeHub, tmp_path: Path) -> Iterator[Rig]:
    """A server with a cache of its own, which it may change."""
    server = vllama_server(make_cache(tmp_path / "hub"), fake=True, env=hub_env(hub, tmp_path))
    rig = Rig(server, tmp_path / "faults")
    yield rig
    rig.close()


@pytest.fixture
def alone(hub: FakeHub, tmp_path: Path) -> Vllama:
    """Where a server could be, and is none."""
    return Vllama(
        tmp_path / "none", make_cache(tmp_path / "hub"), env=hub_env(hub, tmp_path), port=free_port()
    )


def listed(server: Vllama) -> dict[str, dict[str, Any]]:
    return {each["model"]: each for each in json.loads(server.cli("list", "--json").stdout)["models"]}


def test_list_shows_each_model_with_its_type_size_and_state(served: Rig) -> None:
    cli = served.server.cli
    assert served.command("start", CHAT).status_code == 200
    assert served.command("sleep", CHAT, level=1).status_code == 200
    cli("cp", CHAT, "mine")
    head, *rows = cli("list").stdout.splitlines()
    assert head.split() == list(listing.COLUMNS)
    cells = {
        row.split("  ")[0].strip(): [cell.strip() for cell in row.split("  ") if cell.strip()] for row in rows
    }
    assert cells[f"{CHAT} (mine)"][1:3] == ["chat", "4 KiB"]
    assert cells[f"{CHAT} (mine)"][4] == "asleep 1"
    assert cells[EMBED][1:] == ["embedding", "4 KiB", cells[EMBED][3], "stopped"]
    assert cells[RERANK][1] == "rerank"
    assert cli("ls").stdout == cli("list").stdout


def test_show_says_what_a_model_is_and_what_it_takes_and_why(served: Rig) -> None:
    cli = served.server.cli
    cli(
        "assign",
        CHAT,
        "--env",
        "HF_TOKEN=hf_secret",
        "--max-model-len",
        "256",
        "--extra-arg",
        "api-key=hidden-too",
    )
    fresh = json.loads(cli("show", "Chat", "--json").stdout)
    (need,) = fresh["needs"]["devices"]
    assert (fresh["kind"], fresh["architecture"], fresh["parameters"]) == ("chat", "Qwen3ForCausalLM", 2048)
    assert need["need_bytes"] == need["weights_bytes"] + need["kv_bytes"] + need["overhead_bytes"]
    assert (need["weights_bytes"], need["device"], need["measured"]) == (4096, "cpu", None)
    assert "guess until it has run" in need["why"]
    text = cli("show", "Chat").stdout
    assert "secret" not in text
    assert "hidden-too" not in text
    assert [
        word
        for word in ("HF_TOKEN", "max_model_len", "2.0 K", "model.safetensors", "KV cache")
        if word not in text
    ] == []
    cli("assign", CHAT, "--unset", "extra_args")  # it would be a key of the engine's own
    assert served.command("start", CHAT).status_code == 200
    assert wait_until(lambda: "EngineMeasured" in served.kinds(CHAT), BOUND_S)
    assert served.command("sleep", CHAT, level=2).status_code == 200
    ran = json.loads(cli("show", CHAT, "--json").stdout)
    assert (ran["phase"], ran["level"]) == ("asleep", 2)
    assert ran["needs"]["devices"][0]["measured"]["awake_bytes"] > 0
    assert "was measured when it ran" in ran["needs"]["devices"][0]["why"]
    assert set(ran["took_s"]) >= {"start", "sleep-2"}
    assert "its moves have taken" in cli("show", CHAT).stdout
    unknown = cli("show", "tiny/chatt")
    assert (unknown.returncode, unknown.stdout, unknown.stderr.count("\n")) == (1, "", 1)


def test_a_pull_by_the_server_is_told_and_the_model_is_there(served: Rig, hub: FakeHub) -> None:
    commit = hub.put(NEW, model_files(weights_bytes=300_000))
    done = served.server.cli("pull", NEW)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "pulling manifest"
    assert "model.safetensors  293 KiB" in lines
    assert lines[-1].endswith(f"revision {commit[:12]}")
    assert listed(served.server)[NEW]["phase"] == "stopped"
    steps = [json.loads(line) for line in served.server.cli("pull", NEW, "--json").stdout.splitlines()]
    assert steps[-1]["status"] == "success"
    refused = served.server.cli("pull", "tiny/absent")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "tiny/absent" in refused.stderr


def test_a_pull_that_is_broken_off_goes_on_from_there(served: Rig, hub: FakeHub, tmp_path: Path) -> None:
    _break_off_and_go_on(served.server, hub, tmp_path)


def test_so_does_one_with_no_server(alone: Vllama, hub: FakeHub, tmp_path: Path) -> None:
    _break_off_and_go_on(alone, hub, tmp_path)


def _break_off_and_go_on(server: Vllama, hub: FakeHub, tmp_path: Path) -> None:
    hub.put(NEW, model_files(weights_bytes=300_000))
    hub.hold("model.safetensors", 100_000)
    command = [sys.executable, "-m", "vllama.cli.main", "pull", NEW]
    with subprocess.Popen(
        command, env=server.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as pulling:
        hub.until_held("model.safetensors")
        assert wait_until(lambda: there(tmp_path) >= 100_000, BOUND_S)
        pulling.send_signal(signal.SIGINT)
        _, err = pulling.communicate(timeout=BOUND_S)
    assert pulling.returncode == 130
    assert err == f"vllama: {NEW} is not complete: `vllama pull {NEW}` goes on from there\n"
    hub.go_on("model.safetensors")
    assert server.cli("pull", NEW).returncode == 0
    assert "bytes=100000-" in hub.ranges
    assert NEW in listed(server)


def there(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("**/*.incomplete"))


def test_a_revision_is_pulled_with_no_server(alone: Vllama, hub: FakeHub) -> None:
    hub.put(NEW, model_files())
    commit = hub.put(NEW, model_files(weights_bytes=8192), "dev")
    done = alone.cli("pull", NEW, "--revision", "dev")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith(f"{commit[:12]}; it is what is served now")
    assert alone.cli("pull", NEW).returncode == 0  # main comes, and is served
    done = alone.cli("pull", NEW, "--revision", "dev")
    assert f"`vllama assign {NEW} --revision dev` serves the one that was pulled" in done.stdout
    refused = alone.cli("pull", NEW, "--revision", "absent")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)


def test_another_revision_is_served_once_the_entry_says_so(served: Rig, hub: FakeHub) -> None:
    cli = served.server.cli
    main = hub.put(NEW, model_files())
    dev = hub.put(NEW, model_files(weights_bytes=8192), "dev")
    assert cli("pull", NEW).stdout.splitlines()[-1].endswith(f"revision {main[:12]}")
    done = cli("pull", NEW, "--revision", "dev")
    assert done.stdout.splitlines()[-2:] == [
        f"{NEW}: complete, 8 KiB, revision {dev[:12]}",
        f"{NEW}: what is served is still revision {main[:12]}: `vllama assign {NEW} --revision dev` "
        "serves the one that was pulled",
    ]
    assert started_from(served).endswith(main)
    assert (
        "runs without the changes of revision: `vllama restart tiny/new`"
        in cli("assign", NEW, "--revision", "dev").stdout
    )
    assert served.command("restart", NEW).status_code == 200
    assert started_from(served).endswith(dev)
    assert listed(served.server)[NEW]["revision"] == dev
    assert "what is served is still" not in cli("pull", NEW, "--revision", "dev").stdout
    back = cli("pull", NEW).stdout
    assert (
        f"what is served is still revision {dev[:12]}: `vllama assign {NEW} --revision main` serves" in back
    )
    served.command("stop", NEW)
    assert cli("assign", NEW, "--revision", "next").returncode == 0
    absent = cli("start", NEW)
    assert (absent.returncode, absent.stdout) == (1, "")
    assert f"`vllama pull {NEW} --revision next` brings it there" in absent.stderr
    assert cli("assign", NEW, "--unset", "revision").returncode == 0
    assert listed(served.server)[NEW]["revision"] == main


def started_from(rig: Rig) -> str:
    """The folder that the model's engine was started on."""
    assert rig.command("start", NEW).status_code == 200
    words = Path(f"/proc/{rig.view(NEW)['pid']}/cmdline").read_text().split("\0")
    return words[words.index("--model") + 1]


def test_a_broken_pull_of_a_revision_is_gone_on_with_by_the_same_words(alone: Vllama, hub: FakeHub) -> None:
    hub.put(NEW, model_files(weights_bytes=300_000), "dev")
    hub.hold("model.safetensors", 1000)
    command = [sys.executable, "-m", "vllama.cli.main", "pull", NEW, "--revision", "dev"]
    with subprocess.Popen(
        command, env=alone.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as pulling:
        hub.until_held("model.safetensors")
        pulling.send_signal(signal.SIGINT)
        _, err = pulling.communicate(timeout=BOUND_S)
    assert err == f"vllama: {NEW} is not complete: `vllama pull {NEW} --revision dev` goes on from there\n"


def test_without_a_server_the_cache_is_worked_on_by_hand(alone: Vllama) -> None:
    assert "no server" in alone.cli("list").stdout
    assert set(listed(alone)) == {CHAT, EMBED, RERANK}
    assert alone.cli("cp", CHAT, "mine").stdout == f"mine: another name of {CHAT}\n"
    assert listed(alone)[CHAT]["aliases"] == ["mine"]
    assert alone.cli("cp", "mine", EMBED).returncode == 1  # a model of its own
    assert alone.cli("cp", "tiny/none", "x").returncode == 1
    assert "no name of" in alone.cli("rm", "mine").stdout
    assert listed(alone)[CHAT]["aliases"] == []
    done = alone.cli("rm", CHAT, EMBED)
    assert done.stdout.count("removed, ") == 2
    assert set(listed(alone)) == {RERANK}
    gone = alone.cli("rm", CHAT)
    assert (gone.returncode, gone.stderr.count("\n")) == (1, 1)
    alone.cli("rm", RERANK)
    assert "vllama pull" in alone.cli("list").stdout
    assert alone.cli("show", CHAT).returncode == 3
    for words in (
        ("list",),
        ("rm", CHAT),
        ("cp", CHAT, "x"),
        ("pull", CHAT),
    ):  # a server that was named is meant
        assert alone.cli(*words, "--server", alone.url).returncode == 3


def test_a_model_with_an_engine_is_removed_only_when_it_may_be_stopped(served: Rig) -> None:
    assert served.command("start", CHAT).status_code == 200
    refused = served.server.cli("rm", CHAT)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"`vllama stop {CHAT}`" in refused.stderr
    done = served.server.cli("rm", CHAT, "--stop", "--json")
    assert json.loads(done.stdout)["removed"][0]["model"] == CHAT
    assert CHAT not in listed(served.server)


def test_a_pull_on_a_terminal_has_a_bar_for_each_file(alone: Vllama, hub: FakeHub) -> None:
    hub.put(NEW, model_files(weights_bytes=300_000))
    with Terminal("pull", NEW, env=alone.environ, columns=80) as terminal:
        assert terminal.wait() == 0
        assert "model.safetensors" in terminal.text
        assert "━" in terminal.text
        assert "complete" in terminal.text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "just now"), (61, "1 minute ago"), (7300, "2 hours ago"), (2.6e6, "1 month ago")],
)
def test_ages_are_for_people(seconds: float, words: str):
    assert listing.ago(seconds) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "its files do not say"), (999, "999"), (134_515_008, "135 M"), (8.03e9, "8.0 B")],
)
def test_parameters_are_for_people(number: int, words: str):
    assert listing.count(number) == words
