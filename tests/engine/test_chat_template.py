"""A text model's tokenizer is loaded once: vLLM looks for a processor's chat template only where there is a processor."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys, types
from vllama.host.bootstrap import expect_no_processor
from vllm.renderers import hf

looked = []
hf._try_get_processor_chat_template = lambda tokenizer, **options: looked.append(tokenizer.name_or_path) or "found"
expect_no_processor()
found = [hf._try_get_processor_chat_template(types.SimpleNamespace(name_or_path=name), revision=None) for name in sys.argv[1:]]
print(json.dumps([found, looked]))
"""


@pytest.mark.slow
def test_processor_is_looked_for_only_where_there_is_one(tmp_path):
    text, image = tmp_path / "text", tmp_path / "image"
    text.mkdir()
    image.mkdir()
    (image / "preprocessor_config.json").write_text("{}")
    command = [sys.executable, "-c", SCRIPT, str(text), str(image), "org/not-a-folder"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found, looked = json.loads(done.stdout.splitlines()[-1])
    assert found == [None, "found", "found"]
    assert looked == [str(image), "org/not-a-folder"]
