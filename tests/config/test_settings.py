"""Settings and models.yaml: which source wins, what each value came from, and errors that name file, line and key."""

import re
from pathlib import Path

import pytest

from vllama.config import ModelConfig, VllamaConfig, load_config, load_models
from vllama.errors import ConfigError
from vllama.host.bootstrap import RUN_DIR, SHM_MARK

ALL_KEYS = """\
# what we serve
Qwen/Qwen3-0.6B:
  gpu_memory_utilization: 0.85
  max_model_len: 32768
  devices: [0, 1]
  tensor_parallel_size: 2
  trust_remote_code: true
  dtype: bfloat16
  extra_args:
    enable-prefix-caching: false
    max_num_seqs: 16
    quantization: fp8
    allowed-origins: [a, b]
    hf-overrides: {rope: {factor: 2}}
  aliases: [small, gpt-4o]
  sleep_level: 1
  pinned: true
  priority: -2
  unload_timeout: 60
  unload_mode: 3
  kv_cache_memory: 4GiB
  engine_python: /opt/vllm/bin/python
  revision: v1.0
  env: {VLLM_LOGGING_LEVEL: DEBUG}
  lora: {sql: /adapters/sql}
tiny/other:
"""


def test_the_defaults_are_the_specifications() -> None:
    config = load_config({}, {"VLLAMA_CONFIG_DIR": "/nowhere"})
    assert (config.host, config.port) == ("127.0.0.1", 33258)
    assert (config.vllm_port_start, config.vllm_port_end) == (33300, 34300)
    assert (config.unload_timeout, config.unload_mode) == (1800, 2)
    assert (config.policy, config.priority_max) == ("cost", 0)
    assert config.body_bytes_max == 2**30
    assert VllamaConfig().config_dir == Path("~/.vllama").expanduser()


@pytest.mark.parametrize(
    ("env", "cache"),
    [
        ({}, "~/.cache/huggingface/hub"),
        ({"HF_HOME": "/data/hf"}, "/data/hf/hub"),
        ({"HF_HOME": "/data/hf", "HF_HUB_CACHE": "/data/hub"}, "/data/hub"),
    ],
)
def test_the_models_are_those_of_hugging_faces_own_cache(
    env: dict[str, str], cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert VllamaConfig().transformers_cache == Path(cache).expanduser()


@pytest.mark.parametrize("name", list(VllamaConfig.model_fields))
def test_every_setting_has_its_variable(name: str) -> None:
    field = VllamaConfig.model_fields[name]
    default = field.get_default(call_default_factory=True)
    words = "word" if default in (None, (), "") else default
    value = 4096 if "bytes" in name or name in ("memory_limit", "ollama_port", "drain_timeout_s") else words
    variable = f"VLLAMA_{name.upper()}"
    config = load_config({}, {"VLLAMA_CONFIG_DIR": "/nowhere", variable: str(value)})
    assert config.sources[name] == variable
    assert set(config.sources.values()) == {"default", "VLLAMA_CONFIG_DIR", variable}


def test_the_strongest_source_wins_and_each_value_says_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("# ours\nport: 1\nvllm_port_start: 2\nunload_timeout: 3\nmemory_limit: 4GiB\n")
    env = {"VLLAMA_CONFIG_DIR": str(tmp_path), "VLLAMA_PORT": "10", "VLLAMA_VLLM_PORT_START": "20"}
    config = load_config({"port": 100, "host": None}, env)
    assert (config.port, config.vllm_port_start, config.unload_timeout) == (100, 20, 3)
    assert config.memory_limit == 4 * 2**30
    assert config.sources["port"] == "--port"
    assert config.sources["vllm_port_start"] == "VLLAMA_VLLM_PORT_START"
    assert config.sources["unload_timeout"] == f"{file}:4"
    assert config.sources["config_dir"] == "VLLAMA_CONFIG_DIR"
    assert config.sources["host"] == "default"
    assert set(config.sources) == set(VllamaConfig.model_fields)


def test_a_variable_that_is_no_setting_is_named_with_the_nearest_and_without_its_value() -> None:
    env = {
        "VLLAMA_CONFIG_DIR": "/nowhere",
        "VLLAMA_PORTT": "secret",
        "VLLAMA_Zzz": "secret",
        "VLLAMA_ULR": "x",
        "VLLAMA_host": "",
    }
    assert load_config({}, env).strangers == (
        "VLLAMA_PORTT is no setting and changes nothing: did you mean VLLAMA_PORT?",
        "VLLAMA_ULR is no setting and changes nothing: did you mean VLLAMA_URL?",
        "VLLAMA_Zzz is no setting and changes nothing: docs/configuration.md lists those that there are",
        "VLLAMA_host is no setting and changes nothing: did you mean VLLAMA_HOST?",
    )
    assert load_config({}, {"VLLAMA_CONFIG_DIR": "/nowhere"}).strangers == ()


def test_no_variable_that_we_or_others_set_on_purpose_is_taken_for_a_setting() -> None:
    """What stands in our own sources, and what Kubernetes tells of a service that is named vllama."""
    root = Path(__file__).resolve().parents[2]
    files = [root / name for name in ("Makefile", "Dockerfile", "compose.yaml", "README.md", "setup.py")]
    for folder in ("vllama", "tools", "packaging", "docs"):
        files += [
            each for each in (root / folder).rglob("*") if each.suffix in (".py", ".md", ".service", ".toml")
        ]
    texts = [file.read_text(encoding="utf-8") for file in files]
    ours = {name for text in texts for name in re.findall(r"(?<!\w)VLLAMA_[A-Z_]*[A-Z]\b", text)}
    assert {"VLLAMA_URL", "VLLAMA_PURE", "VLLAMA_API_KEY", RUN_DIR, SHM_MARK} <= ours
    ours -= {"VLLAMA_NAME", "VLLAMA_X"}  # any of them
    links = (
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_HTTP",
        "PORT_33258_TCP",
        "PORT_33258_TCP_PROTO",
        "PORT_33258_TCP_ADDR",
    )
    env = dict.fromkeys((*ours, *(f"VLLAMA_{link}" for link in links)), "1")
    kept = [name for name in env if name.removeprefix("VLLAMA_").lower() not in VllamaConfig.model_fields]
    assert len(kept) > len(links)
    assert (
        load_config({}, {name: env[name] for name in kept} | {"VLLAMA_CONFIG_DIR": "/nowhere"}).strangers
        == ()
    )


def test_a_level_may_come_from_the_environment() -> None:
    env = {"VLLAMA_CONFIG_DIR": "/nowhere", "VLLAMA_UNLOAD_MODE": "3", "VLLAMA_SLEEP_LEVEL": "1"}
    config = load_config({}, env)
    assert (config.unload_mode, config.sleep_level) == (3, 1)
    with pytest.raises(ConfigError, match="VLLAMA_SLEEP_LEVEL"):
        load_config({}, env | {"VLLAMA_SLEEP_LEVEL": "4"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("host: box\nprot: 1\n", (":2: ", "key prot", "unknown", "did you mean port?")),
        ("port: '80'\n", (":1: ", "key port", "whole number", "'80'")),
        ("\nunload_mode: 4\n", (":2: ", "key unload_mode")),
        ("port: 1\nport: 2\n", (":2: ", "key port", "line 1")),
        ("port: [1\n", (":2: ", "not valid YAML")),
        ("- port\n", (":1: ", "key: value")),
        ("config_dir: /x\n", (":1: ", "config_dir", "--config-dir")),
    ],
)
def test_an_error_in_config_yaml_names_file_line_and_key(
    tmp_path: Path, text: str, said: tuple[str, ...]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_config({"config_dir": tmp_path}, {})
    message = raised.value.message
    assert message.startswith(f"{file}:")
    assert [word for word in said if word not in message] == []
    assert "\n" not in message
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("port", "many", "must be a whole number (got 'many')"),
        ("port", "1.5", "must be a whole number (got '1.5')"),
        ("port", "-1", "must be at least 0 (got '-1')"),
        ("port", "70000", "must be at most 65535 (got '70000')"),
        ("unload_timeout", "soon", "must be a number (got 'soon')"),
        ("unload_timeout", "0", "must be above 0 (got '0')"),
        ("unload_mode", "4", "must be 1, 2 or 3 (got '4')"),
        ("engine_start", "spawn", "must be 'auto', 'fork' or 'exec' (got 'spawn')"),
        ("memory_limit", "much", "must be a size: write for example 4GiB, 512MiB or 8000000000 (got 'much')"),
    ],
)
def test_an_error_in_the_environment_names_the_variable_and_what_is_wrong(
    tmp_path: Path, name: str, value: str, said: str
) -> None:
    variable = f"VLLAMA_{name.upper()}"
    with pytest.raises(ConfigError) as raised:
        load_config({"config_dir": tmp_path}, {variable: value})
    assert raised.value.message == f"setting {name} (from {variable}): {said}"


def test_a_flag_is_named_as_it_is_typed_and_two_that_disagree_both(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\(from --shutdown-timeout\): must be at least 0"):
        load_config({"config_dir": tmp_path, "shutdown_timeout_s": -1.0}, {})
    with pytest.raises(ConfigError) as raised:
        load_config({"config_dir": tmp_path}, {"VLLAMA_VLLM_PORT_END": "5"})
    words = "settings vllm_port_start 33300 (from default) and vllm_port_end 5 (from VLLAMA_VLLM_PORT_END) leave no port"
    assert raised.value.message.startswith(words)


def test_every_key_of_models_yaml(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(ALL_KEYS)
    models = load_models(file)
    entry = models["Qwen/Qwen3-0.6B"]
    assert models["tiny/other"] == ModelConfig()
    assert set(ModelConfig.model_fields) == entry.model_fields_set
    assert entry.devices == (0, 1)
    assert entry.aliases == ("small", "gpt-4o")
    assert entry.kv_cache_memory == 4 * 2**30
    assert entry.extra_args["hf-overrides"] == {"rope": {"factor": 2}}
    assert entry.extra_args["enable-prefix-caching"] is False
    assert load_models(tmp_path / "absent.yaml") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a/b:\n  dtpye: auto\n", (":2: ", "model a/b", "key dtpye", "unknown", "did you mean dtype?")),
        ("a/b:\n  max_model_len: 'x'\n", (":2: ", "key max_model_len", "whole number")),
        ("a/b:\n  max_model_len: '9'\n", (":2: ", "key max_model_len", "whole number")),
        ("a/b:\n  pinned: 1\n", (":2: ", "key pinned", "true or false")),
        ("a/b:\n  tensor_parallel_size: true\n", (":2: ", "key tensor_parallel_size")),
        ("a/b:\n\n  gpu_memory_utilization: most\n", (":3: ", "gpu_memory_utilization", "auto")),
        ("a/b:\n  gpu_memory_utilization: 1.5\n", (":2: ", "gpu_memory_utilization", "at most 1")),
        ("a/b:\n  devices: 0\n", (":2: ", "key devices", "list")),
        ("a/b:\n  devices:\n  - 0\n  - x\n", (":2: ", "key devices.1", "whole number")),
        ("a/b:\n  env:\n    A: a\n    B: 1\n", (":4: ", "key env.B", "text")),
        ("a/b:\n  kv_cache_memory: much\n", (":2: ", "kv_cache_memory", "4GiB")),
        ("a/b: 7\n", (":1: ", "model a/b", "mapping")),
        ("a/b:\n  dtype: auto\na/b:\n  pinned: true\n", (":3: ", "a/b", "line 1")),
        ("a/b:\n  aliases: [x]\nc/d:\n  aliases: [x]\n", (":4: ", "model c/d", "aliases", "x", "a/b")),
        ("a/b:\n  aliases: [c/d]\nc/d:\n", (":2: ", "c/d", "model of its own")),
        ("a/b:\n  lora: {x: /p}\n  aliases: [x]\n", (":2: ", "lora", "x")),
        ("a/b:\n  aliases: ['']\n", (":2: ", "aliases.0")),
        ("a/b:\n  aliases: [--port]\n", (":2: ", "aliases.0", "one word", "begin with -")),
        ("a/b:\n  lora: {x=y: /p}\n", (":2: ", "lora.x=y")),
        ("a/b:\n  revision: ../../x\n", (":2: ", "key revision", "branch, a tag or a commit")),
        ("a/b:\n  revision: -x\n", (":2: ", "key revision")),
        ("a/b:\n\tdtype: auto\n", (":2: ", "not valid YAML")),
        ("a/b:\n  extra_args: {2020-01-01: 1}\n", (":1: ", "text")),
        ("a/b:\n  dtype: \x01\n", (":2: ", "not valid YAML", "U+0001")),
        ("a/b: &x\n  env: *x\n", (":1: ", "not valid YAML", "holds itself")),
        ("a/b:\n  env: &x {A: [*x]}\n", (":2: ", "not valid YAML", "holds itself")),
        ("[" * 5000, (": not valid YAML", "nested")),
        ("a/b: " + "{x: " * 3000, (": not valid YAML", "nested")),
        ("a/b:\n  pinned: !!bool x\n", (": not valid YAML", "tag")),
        ("a/b:\n  dtype: !!timestamp x\n", (": not valid YAML", "tag")),
        ("a/b:\n  priority: !!int ''\n", (": not valid YAML", "tag")),
    ],
)
def test_an_error_in_models_yaml_names_file_line_and_key(
    tmp_path: Path, text: str, said: tuple[str, ...]
) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_models(file)
    message = raised.value.message
    assert message.startswith(f"{file}:")
    assert [word for word in said if word not in message] == []
    assert "\n" not in message


def test_two_entries_may_share_what_an_anchor_names(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("a/b:\n  env: &x {A: a}\nc/d:\n  env: *x\n")
    assert [entry.env for entry in load_models(file).values()] == [{"A": "a"}, {"A": "a"}]


def test_a_file_that_is_no_text_is_an_error_too(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_models(file)
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_models(file)
