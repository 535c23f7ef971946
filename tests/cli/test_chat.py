"""The parts of `vllama run` by themselves: what is typed, what is set, what is saved, how Markdown is cut, how a wait is told."""

import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vllama.cli.chat import command
from vllama.cli.chat.answer import Answer, Piece, told
from vllama.cli.chat.conversation import Conversation, ConversationError, place
from vllama.cli.chat.keyboard import _open, unquoted
from vllama.cli.chat.parameters import ParameterError, parameter
from vllama.cli.chat.waiting import Ways
from vllama.cli.client import AnswerError, Client
from vllama.cli.folders import config_dir
from vllama.cli.main import app
from vllama.cli.markdown import MarkdownPrinter, blocks
from vllama.config import load_config


def test_the_folder_is_where_the_server_has_it(monkeypatch: pytest.MonkeyPatch):
    for env in ({}, {"VLLAMA_CONFIG_DIR": "~/elsewhere"}):
        monkeypatch.delenv("VLLAMA_CONFIG_DIR", raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        assert config_dir() == load_config({}, env).config_dir


# --- what is typed


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        ("hello", False),
        ('"""', True),
        ('"""a\nb', True),
        ('"""a"""', False),
        ('"""a\nb"""', False),
        ('/set system """You', True),
        ('/set system """You"""', False),
        ('what is """ in Python', False),
    ],
)
def test_triple_quotes_go_on_until_they_are_closed(text: str, opened: bool):
    assert _open(text) is opened


@pytest.mark.parametrize(
    ("text", "bare"),
    [('"""\na\nb\n"""', "a\nb"), ('"a"', "a"), ('"', '"'), (' a "b" ', 'a "b"'), ('""""""', "")],
)
def test_quotes_around_a_text_are_no_part_of_it(text: str, bare: str):
    assert unquoted(text) == bare


def test_what_is_piped_in_stands_before_what_is_asked_about_it(monkeypatch: pytest.MonkeyPatch):
    for piped, words, asked in [
        ("a file\n", ["Summarize", "it"], "a file\n\nSummarize it"),
        ("", ["Hi"], "Hi"),
        ("\n  \n", ["Hi"], "Hi"),
        ("only this\n", [], "only this"),
        ("", [], ""),
    ]:
        monkeypatch.setattr("sys.stdin", io.StringIO(piped))
        assert command._question(words) == asked


# --- what is set


@pytest.mark.parametrize(
    ("name", "text", "known", "value"),
    [
        ("temperature", "0", "temperature", 0.0),
        ("top-k", "40", "top_k", 40),
        ("num_predict", "5", "max_tokens", 5),
        ("stop", "a,\\n", "stop", ["a", "\n"]),
        ("stop", "ü。\\n", "stop", ["ü。\n"]),
        ("seed", "default", "seed", None),
    ],
)
def test_a_parameter_is_read_as_what_the_engine_takes(name: str, text: str, known: str, value: object):
    assert parameter(name, text) == (known, value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("temperature", "hot"), ("temperature", "nan"), ("top_k", "1.5"), ("stop", ""), ("temp", "1")],
)
def test_a_wrong_parameter_is_named_with_what_it_may_be(name: str, text: str):
    with pytest.raises(ParameterError, match=name):
        parameter(name, text)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "m", "--set", "temperature"],
        ["run", "m", "--set", "heat=1", "hi"],
        ["run", "m"],
        ["run", "m", "--json"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_asked_is_a_usage_error_before_any_server(words: list[str]):
    done = CliRunner().invoke(app, [*words, "--server", "http://127.0.0.1:9"])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)


# --- a conversation


def test_a_request_has_the_whole_conversation_and_what_is_set():
    conversation = Conversation("m", "Be brief.", {"temperature": 0.5}, think=False)
    conversation.heard("a?", "b")
    body = conversation.body("c?")
    assert [(each["role"], each["content"]) for each in body["messages"]] == [
        ("system", "Be brief."), ("user", "a?"), ("assistant", "b"), ("user", "c?"),
    ]  # fmt: skip
    assert (body["temperature"], body["chat_template_kwargs"]["enable_thinking"]) == (0.5, False)
    assert "chat_template_kwargs" not in Conversation("m").body("x")


def test_a_conversation_is_saved_and_loaded_whole(tmp_path: Path):
    conversation = Conversation("m", "s", {"seed": 1}, True, [{"role": "user", "content": "ü"}])
    path = place("mine", tmp_path)
    conversation.save(path)
    assert path == tmp_path / "mine.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert Conversation.load(path) == conversation
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"v": 9}', '{"v": 1, "messages": [{"role": "system"}]}'])
def test_what_is_no_conversation_is_said_to_be_none(tmp_path: Path, text: str):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConversationError, match="is not a conversation"):
        Conversation.load(tmp_path / "x.json")
    with pytest.raises(ConversationError, match="cannot be read"):
        Conversation.load(tmp_path / "y.json")


@pytest.mark.parametrize("name", ["", "a/b", "a b", "-x"])
def test_a_conversations_name_stays_in_its_folder(tmp_path: Path, name: str):
    with pytest.raises(ConversationError, match="no name"):
        place(name, tmp_path)


# --- an answer


def test_an_answers_pieces_are_thoughts_and_text_and_what_it_took():
    answer = Answer(Client("http://127.0.0.1:9"), {})
    chunks = [
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"delta": {"content": "yes"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    ]
    pieces = [piece for chunk in chunks for piece in answer._taken(chunk)]
    assert pieces == [Piece("thought", "hm"), Piece("text", "yes")]
    assert (answer.text, answer.finish, answer.tokens) == ("yes", "stop", 2)
    figures = answer.figures()
    assert figures["first_token_s"] is not None
    assert "2 tokens" in told(figures)
    with pytest.raises(AnswerError, match="broke"):
        list(answer._taken({"error": {"message": "it broke", "code": "engine_lost"}}))


# --- a wait


def test_a_wait_is_told_by_phase_with_what_it_took_before():
    ways = Ways({"starting": 14.2})
    assert ways.told("org/Qwen3-8B", 100.0, 103.2) == "waiting for Qwen3-8B, 3 s"
    ways.take("PhaseChanged", {"to": "starting", "at": 100.0})
    assert ways.told("org/Qwen3-8B", 99.0, 102.5) == "starting Qwen3-8B, 2 s of about 14"
    ways.take("PhaseChanged", {"to": "awake", "at": 110.0})
    assert ways.took_s == {"starting": 10.0}
    ways.take("EngineSlept", {"level": 2, "at": 120.0})
    ways.take("PhaseChanged", {"to": "waking", "at": 130.0})
    assert ways.told("Qwen3-8B", 130.0, 132.0) == "waking Qwen3-8B, 2 s"
    ways.take("PhaseChanged", {"to": "awake", "at": 132.9})
    ways.take("PhaseChanged", {"to": "waking", "at": 140.0})
    assert ways.told("Qwen3-8B", 140.0, 142.1) == "waking Qwen3-8B, 2 s of about 3"
    ways.take("EngineSlept", {"level": 1, "at": 150.0})
    ways.take("PhaseChanged", {"to": "waking", "at": 151.0})
    assert ways.told("Qwen3-8B", 151.0, 151.0) == "waking Qwen3-8B, 0 s"  # level 1 is another way
    assert ways.took_s == {"starting": 10.0, "waking 2": 2.9}


# --- Markdown


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("a", ["a"]),
        ("a\n\n", ["a\n\n"]),  # what follows may belong to it
        ("a\n\nb", ["a\n\n", "b"]),
        ("a\n\n  b", ["a\n\n  b"]),
        ("- a\n\n  more\n\nb", ["- a\n\n  more\n\n", "b"]),
        ("```\na\n\nb\n", ["```\na\n\nb\n"]),
        ("```\na\n\nb\n```\n\nc", ["```\na\n\nb\n```\n\n", "c"]),
        ("````\n```\n\nb\n```\n````\n\nc", ["````\n```\n\nb\n```\n````\n\n", "c"]),
        ("~~~py\n\n```\n\n~~~\n\nc", ["~~~py\n\n```\n\n~~~\n\n", "c"]),
        ("", [""]),
    ],
)
def test_a_block_of_markdown_ends_where_no_more_of_it_can_come(text: str, cut: list[str]):
    assert blocks(text) == cut


def test_markdown_comes_out_the_same_however_it_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    text = "# Title\n\nSome **bold** [x]\n\n1. one\n\n   more\n2. two\n\n```py\na = 1\n\nb = 2\n```\n\n| a |\n|---|\n| 1 |\n\nend"
    monkeypatch.setenv("COLUMNS", "40")
    shown = set()
    for step in (1, 7, len(text)):
        printer = MarkdownPrinter()
        for start in range(0, len(text), step):
            printer.text(text[start : start + step])
        printer.end()
        lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        shown.add("\n".join(lines))
    (only,) = shown
    assert only.startswith("Title\n\nSome bold [x]\n\n 1 one\n   more\n 2 two\n\n")
    assert "\n\n\n" not in only
    assert only.endswith("\n\nend")


def test_json_is_one_tree():
    assert json.dumps(Answer(Client("http://127.0.0.1:9"), {}).figures())
