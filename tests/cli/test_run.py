"""`vllama run` as its user has it: in a pipe and on a terminal, against a real server with fake engines."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import Vllama, free_port, tagged, wait_until

from tests.api.caches import CHAT, EMBED
from tests.api.rig import Rig
from tests.cli.terminal import Terminal
from tests.conftest import FAKE_ENGINE
from vllama.cli import local_cache

BOUND_S = 60.0
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


def piped(rig: Rig, *words: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "vllama.cli.main", "run", *words],
        env=rig.server.environ,
        input=text,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


def test_in_a_pipe_the_answer_is_plain_text_and_nothing_else(rig: Rig) -> None:
    done = piped(rig, "Chat", *QUESTION.split())
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ANSWER}\n", "")
    done = piped(rig, CHAT, "What is it?", text="The capital of France\n")
    assert done.stdout == f"{ANSWER}\n"  # the fake knows both parts
    done = piped(rig, CHAT, QUESTION, "--verbose", "--set", "max_tokens=3")
    assert done.stdout == "The capital of\n"
    assert "3 tokens" in done.stderr
    assert "cut at its longest" in done.stderr
    tree = json.loads(piped(rig, CHAT, QUESTION, "--json").stdout)
    assert (tree["answer"], tree["finish_reason"], tree["tokens"]) == (ANSWER, "stop", 6)


def test_what_cannot_chat_or_is_not_there_is_refused_in_one_line(rig: Rig) -> None:
    for words, said in [
        ((EMBED, "hi"), f"{EMBED} makes embeddings and cannot chat: use it by POST /v1/embeddings"),
        (("tiny/chatt", "hi"), f"did you mean {CHAT}"),
        ((CHAT, "hi", "--set", "top_p=7", "--server", "http://127.0.0.1:9"), "no vllama server answers"),
    ]:
        done = piped(rig, *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (
            3 if "--server" in words else 1,
            "",
            1,
        )
        assert said in done.stderr
    assert rig.view(EMBED)["phase"] == ""  # nothing was started for it


def test_a_chat_on_a_terminal_from_the_first_prompt_to_the_last(rig: Rig) -> None:
    env = rig.server.environ
    with Terminal("run", "Chat", env=env) as chat:
        assert "Chat is awake" in chat.until(">>> ")
        assert ANSWER in chat.ask(QUESTION)
        assert "tokens/s" not in chat.text
        assert "figures are told" in chat.ask("/set verbose")
        assert "tokens/s, first after" in chat.ask("and then?")
        chat.type('"""first\n')
        chat.until("... ")
        assert ANSWER in chat.ask('the capital of France"""')
        assert "must be a number" in chat.ask("/set temperature hot")
        assert "temperature: 0.5" in chat.ask("/set parameter temperature 0.5")
        assert "there is no /nothing" in chat.ask("/nothing")
        assert re.search(r"questions +3", chat.ask("/show"))
        assert "saved: " in chat.ask("/save mine")
        assert "forgotten" in chat.ask("/clear")
        assert re.search(r"questions +0", chat.ask("/show"))
        assert "3 questions, with Chat" in chat.ask("/load mine")
        assert "cannot chat" in chat.ask(f"/load {EMBED}")
        assert f"goes on with {CHAT}" in chat.ask(f"/load {CHAT}")
        assert "no name for" in chat.ask("/save a/b")
        assert "Ctrl-C stops the answer" in chat.ask("/?")
        chat.type("\x04")
        assert chat.wait() == 0
    saved = json.loads((Path(env["VLLAMA_CONFIG_DIR"]) / "chats" / "mine.json").read_text())
    assert [each["content"] for each in saved["messages"]][:2] == [QUESTION, ANSWER]
    history = (Path(env["VLLAMA_CONFIG_DIR"]) / "history").read_text().splitlines()
    assert QUESTION in history
    with Terminal("run", "Chat", env=env) as chat:  # the history is there the next time
        chat.until(">>> ")
        chat.type("\x1b[A")
        chat.until("/?")
        chat.type("\x15/bye\n")
        assert chat.wait() == 0


def test_ctrl_c_stops_the_answer_and_not_the_chat(rig: Rig) -> None:
    with Terminal("run", CHAT, env=rig.server.environ) as chat:
        chat.until(">>> ")
        rig.faults("gated")
        chat.type(f"{QUESTION}\n")
        rig.waits_at(CHAT, "all")
        chat.until("chat reads")
        rig.engine(CHAT, "POST", "/fake/gate?name=all&tokens=1")
        chat.until("The")
        assert "(stopped)" in chat.ask("\x03", end="")
        assert wait_until(lambda: rig.stats(CHAT)["aborted"] == 1, BOUND_S)
        rig.faults()
        assert "1" in chat.ask("/show")
        assert ANSWER in chat.ask(QUESTION)
        assert "(Ctrl-D or /bye leaves)" in chat.ask("\x03", end="")
        chat.type("/bye\n")
        assert chat.wait() == 0


def test_ctrl_c_ends_one_question_with_130(rig: Rig) -> None:
    assert rig.command("start", CHAT).status_code == 200
    rig.faults("gated")
    with Terminal("run", CHAT, QUESTION, env=rig.server.environ) as asked:
        rig.waits_at(CHAT, "all")
        asked.type("\x03")
        assert asked.wait() == 130


def test_the_wait_for_a_model_is_told_while_it_comes_up(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig("hang_at_start")
    with Terminal("run", CHAT, env=rig.server.environ) as chat:
        chat.until("starting chat, ")
        rig.faults()
        chat.until(">>> ")
        chat.type("\x04")
        assert chat.wait() == 0
    notes = Path(rig.server.environ["VLLAMA_CONFIG_DIR"]) / "waits.json"
    assert json.loads(notes.read_text())[CHAT]["starting"] > 0
    assert rig.command("stop", CHAT).status_code == 200
    rig.faults("hang_at_start")
    with Terminal("run", CHAT, env=rig.server.environ) as chat:  # what it took before is what it may take
        chat.until(" of about ")
        chat.type("\x03")
        assert chat.wait() == 130
    rig.faults()


def test_an_engine_that_cannot_start_is_told_in_the_servers_words(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig("die_at_start")
    with Terminal("run", CHAT, env=rig.server.environ) as chat:
        assert chat.wait() == 1
        assert "Engine core initialization failed" in chat.text


@pytest.fixture
def nobody(fake_cache: Path, tmp_path: Path) -> Vllama:
    """Where a server could be, and is none."""
    env = {"VLLAMA_ENGINE_ENTRY": str(FAKE_ENGINE), "VLLAMA_ENGINE_START": "exec"}
    return Vllama(tmp_path / "own", fake_cache, env=env, port=free_port())


def test_without_a_server_one_is_started_for_the_chat_and_ends_with_it(nobody: Vllama) -> None:
    done = nobody.cli("run", CHAT, QUESTION)
    assert (done.returncode, done.stdout) == (0, f"{ANSWER}\n")
    assert f"no server runs at {nobody.url}: one was started for this chat and ends with it" in done.stderr
    assert done.stderr.count("\n") == 1
    assert nobody.left() == []
    with Terminal("run", CHAT, env=nobody.environ) as chat:
        chat.until(">>> ")
        assert nobody.cli("ps").stdout.count("awake") == 1
        assert ANSWER in chat.ask(QUESTION)
        assert "leaves)" in chat.ask("\x03", end="")  # it is not for the server
        assert ANSWER in chat.ask(QUESTION)
        chat.type("\x04")
        assert chat.wait() == 0
    assert nobody.left() == []


def test_the_server_of_a_chat_that_is_killed_ends_too(nobody: Vllama) -> None:
    with Terminal("run", CHAT, env=nobody.environ) as chat:
        chat.until(">>> ")
        assert tagged(nobody.tag)
        os.kill(chat.process.pid, signal.SIGKILL)
        chat.process.wait(BOUND_S)
        assert nobody.wait_nothing_left(BOUND_S) == []


def test_a_server_that_cannot_be_started_is_said_with_its_reason(nobody: Vllama) -> None:
    keys = nobody.config_dir / "keys"  # which is not there: no wrong setting, and no server
    nobody.config_dir.mkdir(exist_ok=True)
    (nobody.config_dir / "config.yaml").write_text(f"api_key_file: {keys}\n")
    done = nobody.cli("run", CHAT, QUESTION)
    assert (done.returncode, done.stdout) == (3, "")
    assert "none can be started: " in done.stderr
    assert str(keys) in done.stderr
    assert done.stderr.count("vllama: ") == 1


ENTRIES = f"""\
{CHAT}:
  aliases: [mine]
  lora: {{sql: /adapters/sql}}
{EMBED}:
  aliases: [vectors]
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tiny/chatt", "no complete model 'tiny/chatt' in {cache}; did you mean tiny/chat or "),
        ("qqq/zzz", "no complete model 'qqq/zzz' in {cache}; `vllama pull qqq/zzz` brings"),
        ("vectors", f"{EMBED} makes embeddings and cannot chat"),
    ],
)
def test_an_unknown_name_is_refused_without_starting_a_server(nobody: Vllama, name: str, said: str) -> None:
    nobody.config_dir.mkdir(exist_ok=True)
    (nobody.config_dir / "models.yaml").write_text(ENTRIES)
    done = nobody.cli("run", name, QUESTION)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    cache = nobody.environ["VLLAMA_TRANSFORMERS_CACHE"]
    assert done.stderr.startswith(f"vllama: {said.format(cache=cache)}")
    assert not (nobody.config_dir / "logs" / "run-server.log").exists()


def test_a_broken_models_yaml_is_said_without_starting_a_server(nobody: Vllama) -> None:
    nobody.config_dir.mkdir(exist_ok=True)
    file = nobody.config_dir / "models.yaml"
    file.write_text("a/b: 1\n")
    done = nobody.cli("run", CHAT, QUESTION)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"vllama: {file}:1: ")


@pytest.mark.parametrize("name", ["mine", "MINE", "sql", "Chat"])
def test_every_name_that_a_server_knows_is_known_before_it_is_started(
    nobody: Vllama, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    nobody.config_dir.mkdir(exist_ok=True)
    (nobody.config_dir / "models.yaml").write_text(ENTRIES)
    for variable in ("VLLAMA_CONFIG_DIR", "VLLAMA_TRANSFORMERS_CACHE"):
        monkeypatch.setenv(variable, nobody.environ[variable])
    assert local_cache.card(name) == {"id": CHAT, "kind": "chat"}
