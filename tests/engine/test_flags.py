"""extra_args as vLLM's own parser reads them, and our tables of odd flags against its own."""

import json
import subprocess
import sys

import pytest

from tests.host.test_command import CHAT, CONFIG, CPU
from vllama.config import ModelConfig
from vllama.host.command import APPENDED, JSON_LISTS, RESERVED, STORE_TRUE, engine_argv

pytestmark = pytest.mark.engine

SCRIPT = """
import argparse, json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = make_arg_parser(FlexibleArgumentParser())
kinds = {"append": [], "json": [], "switch": []}
for action in parser._actions:
    names = [name[2:] for name in action.option_strings if name.startswith("--")]
    kind = type(action).__name__
    if "Append" in kind:
        kinds["append"] += names
    elif "StoreTrue" in kind:
        kinds["switch"] += names
    elif action.type is json.loads and isinstance(action.default, list):
        kinds["json"] += names
parsed = vars(parser.parse_args(json.loads(sys.stdin.read())))
print("\\n" + json.dumps([kinds, parsed], default=lambda value: getattr(value, "__dict__", str(value))))
"""

EXTRA = {
    "enable-prefix-caching": False,
    "disable-log-stats": True,
    "aggregate-engine-logging": False,
    "max_num_seqs": 4,
    "--seed": 7,
    "hf-overrides": {"rope": {"factor": 2.5, "on": True}},
    "allowed-origins": ["https://a", "https://b"],
    "middleware": ["m.one", "m.two"],
    "allowed_media_domains": ["x.example", "y.example"],
    "chat-template": "-starts with a dash",
    "quantization": None,
}


def test_every_kind_of_value_arrives_as_it_was_meant() -> None:
    model = ModelConfig(
        aliases=("small", "other"), lora={"sql": "/adapters/sql", "a": "org/a"}, extra_args=EXTRA
    )
    argv = engine_argv(CONFIG, model, CHAT, (CPU,), 2**33)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(argv), capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    kinds, parsed = json.loads(done.stdout.splitlines()[-1])
    assert parsed["served_model_name"] == ["o/chat", "small", "other"]
    assert parsed["enable_lora"] is True
    assert [(item["name"], item["path"]) for item in parsed["lora_modules"]] == [
        ("sql", "/adapters/sql"),
        ("a", "org/a"),
    ]
    assert parsed["enable_prefix_caching"] is False
    assert parsed["disable_log_stats"] is True
    assert (parsed["max_num_seqs"], parsed["seed"]) == (4, 7)
    assert parsed["hf_overrides"] == {"rope": {"factor": 2.5, "on": True}}
    assert parsed["allowed_origins"] == ["https://a", "https://b"]
    assert parsed["middleware"] == ["m.one", "m.two"]
    assert parsed["allowed_media_domains"] == ["x.example", "y.example"]
    assert parsed["chat_template"] == "-starts with a dash"
    assert parsed["quantization"] is None
    assert set(kinds["json"]) == JSON_LISTS
    assert set(kinds["append"]) == APPENDED
    assert set(kinds["switch"]) - RESERVED <= STORE_TRUE
