"""Tables: which arguments and environment an engine gets, and how much memory it is thought to need."""

import dataclasses
from typing import Any

import pytest

from vllama.config import ModelConfig, VllamaConfig
from vllama.errors import ConfigError
from vllama.host.command import engine_argv, flag, launch_spec
from vllama.host.estimate import (
    CPU_OVERHEAD_BYTES,
    CUDA_CONTEXT_BYTES,
    CUDA_OVERHEAD_BYTES,
    estimate,
    kv_bytes_for_lease,
    world_size,
)
from vllama.host.host import DeviceInfo, ModelFiles

GIB, MIB = 2**30, 2**20
CPU = DeviceInfo("cpu", "cpu", 0, "CPU RAM", 8 * GIB)
GPU = DeviceInfo("GPU-1", "cuda", 0, "A GPU", 80 * GIB)
GPU2 = DeviceInfo("GPU-2", "cuda", 1, "A GPU", 80 * GIB)
CONFIG = VllamaConfig()
SMOLLM = {
    "num_hidden_layers": 30, "num_key_value_heads": 3, "num_attention_heads": 9, "hidden_size": 576,
    "model_type": "llama",
}  # fmt: skip
SMOLLM_TOKEN = 2 * 30 * 3 * 64 * 2
CHAT = ModelFiles("o/chat", "/hub/chat", "r", "chat", "LlamaForCausalLM", 270 * MIB, 8192, SMOLLM, 0.0)
BERT = ModelFiles(
    "o/bert", "/hub/bert", "r", "embedding", "BertModel", 90 * MIB, 256, {"model_type": "bert"}, 0.0, 90 * MIB
)


def argv(
    files: ModelFiles = CHAT, *devices: DeviceInfo, lease: int = 100 * GIB, **model: Any
) -> dict[str, str]:
    """The arguments as a mapping; a switch has the value ""."""
    words = engine_argv(CONFIG, ModelConfig(**model), files, devices or (CPU,), lease)
    found: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            found[name] = value
        else:
            found[name] = f"{found[name]} {word}".strip()
    return found


def test_a_chat_model_on_cpu() -> None:
    assert argv() == {
        "--model": "/hub/chat",
        "--served-model-name": "o/chat",
        "--max-model-len": "-1",
        "--enforce-eager": "",
        "--worker-cls": "vllama.host.cpu_worker.SleepingCPUWorker",
        "--kv-cache-memory-bytes": str((8192 + 128) * SMOLLM_TOKEN),
    }


def test_an_embedding_model_pools_and_keeps_no_kv_cache() -> None:
    found = argv(BERT)
    assert found["--runner"] == "pooling"
    assert found["--kv-cache-memory-bytes"] == str(MIB)


def test_what_the_model_settings_say() -> None:
    found = argv(max_model_len=1024, dtype="float32", trust_remote_code=True, tensor_parallel_size=2)
    assert found["--max-model-len"] == "1024"
    assert found["--dtype"] == "float32"
    assert found["--trust-remote-code"] == ""
    assert found["--tensor-parallel-size"] == "2"
    assert argv(kv_cache_memory="64MiB")["--kv-cache-memory-bytes"] == str(64 * MIB)


def test_the_engine_knows_the_aliases_and_the_adapters() -> None:
    found = argv(aliases=("small", "gpt-4o"), lora={"sql": "/adapters/sql", "chat": "org/chat-lora"})
    assert found["--served-model-name"] == "o/chat small gpt-4o"
    assert found["--enable-lora"] == ""
    assert found["--lora-modules"] == "sql=/adapters/sql chat=org/chat-lora"
    assert not {"--enable-lora", "--lora-modules"} & argv().keys()


def test_a_cut_lease_cuts_the_kv_cache() -> None:
    size = estimate(CHAT, ModelConfig(), CONFIG, CPU)
    assert argv(lease=size.need_bytes)["--kv-cache-memory-bytes"] == str(size.kv_bytes)
    assert argv(lease=size.need_bytes - 50 * MIB)["--kv-cache-memory-bytes"] == str(size.kv_bytes - 50 * MIB)
    assert argv(lease=0)["--kv-cache-memory-bytes"] == str(MIB)
    assert kv_bytes_for_lease(size, 0) == 0


def test_on_a_gpu_the_share_is_a_demand_below_the_lease_and_the_kv_cache_is_given() -> None:
    found = argv(CHAT, GPU, lease=8 * GIB)
    assert found["--enable-sleep-mode"] == ""
    assert found["--gpu-memory-utilization"] == f"{(8 - 0.5) / 80 - 5e-5:.4f}"  # never rounded up
    assert found["--kv-cache-memory-bytes"] == str((8192 + 128) * SMOLLM_TOKEN)
    assert not {"--worker-cls", "--enforce-eager"} & found.keys()
    assert argv(CHAT, GPU, lease=80 * GIB)["--gpu-memory-utilization"] == f"{79.5 / 80 - 5e-5:.4f}"
    assert argv(CHAT, GPU, kv_cache_memory="1GiB")["--kv-cache-memory-bytes"] == str(GIB)
    size = estimate(CHAT, ModelConfig(), CONFIG, GPU)
    cut = argv(CHAT, GPU, lease=size.need_bytes - 50 * MIB)
    assert cut["--kv-cache-memory-bytes"] == str(size.kv_bytes - 50 * MIB)
    assert "--kv-cache-memory-bytes" not in argv(BERT, GPU)


def test_on_a_gpu_an_engine_can_be_started_without_sleep_mode() -> None:
    found = engine_argv(CONFIG, ModelConfig(), CHAT, (GPU,), 8 * GIB, sleep_mode=False)
    assert "--enable-sleep-mode" not in found


def test_a_share_that_was_given_stays_unless_the_lease_was_cut() -> None:
    model = ModelConfig(gpu_memory_utilization=0.5)
    size = estimate(CHAT, model, CONFIG, GPU)
    assert size.need_bytes == 40 * GIB + CUDA_CONTEXT_BYTES
    found = argv(CHAT, GPU, lease=size.need_bytes, gpu_memory_utilization=0.5)
    assert found["--gpu-memory-utilization"] == "0.5000"
    assert "--kv-cache-memory-bytes" not in found  # vLLM fills its share
    cut = argv(CHAT, GPU, lease=20 * GIB, gpu_memory_utilization=0.5)
    assert cut["--gpu-memory-utilization"] == f"{19.5 / 80 - 5e-5:.4f}"


def test_under_a_memory_limit_the_share_is_still_of_the_whole_gpu() -> None:
    limited = DeviceInfo("GPU-1", "cuda", 0, "A GPU", 20 * GIB, physical_bytes=80 * GIB)
    assert (
        argv(CHAT, limited, lease=8 * GIB)["--gpu-memory-utilization"]
        == argv(CHAT, GPU, lease=8 * GIB)["--gpu-memory-utilization"]
    )
    assert estimate(CHAT, ModelConfig(gpu_memory_utilization=0.1), CONFIG, limited).need_bytes == (
        8 * GIB + CUDA_CONTEXT_BYTES
    )
    encoder = estimate(BERT, ModelConfig(gpu_memory_utilization=0.1), CONFIG, limited)
    assert encoder.need_bytes == 8 * GIB + CUDA_CONTEXT_BYTES


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_num_seqs", 8, ["--max-num-seqs", "8"]),
        ("--max-num-seqs", 8, ["--max-num-seqs", "8"]),
        ("swap_space", 0.5, ["--swap-space", "0.5"]),
        ("seed", -1, ["--seed", "-1"]),
        ("enable_prefix_caching", True, ["--enable-prefix-caching"]),
        ("enable_prefix_caching", False, ["--no-enable-prefix-caching"]),
        ("disable_log_stats", False, []),
        ("quantization", None, []),
        ("quantization", "awq", ["--quantization", "awq"]),
        ("allowed_media_domains", ["a", "b"], ["--allowed-media-domains", "a", "b"]),
        ("allowed_media_domains", [], []),
        ("hf_overrides", {"a": {"b": [1, True]}}, ["--hf-overrides", '{"a": {"b": [1, true]}}']),
        ("lora_modules", [{"name": "x", "path": "y"}], ["--lora-modules", '{"name": "x", "path": "y"}']),
        ("chat_template", "-dashed", ["--chat-template=-dashed"]),
    ],
)
def test_extra_arguments_of_every_type(name: str, value: object, words: list[str]) -> None:
    assert list(flag(name, value)) == words


def test_extra_arguments_win_but_ours() -> None:
    found = argv(extra_args={"enforce_eager": False, "max-model-len": 77})
    assert found["--max-model-len"] == "77"
    assert "--no-enforce-eager" in found
    assert "--enforce-eager" not in found
    for name in ("port", "served_model_name", "--api-key"):
        with pytest.raises(ConfigError, match="belongs to vllama") as caught:
            argv(extra_args={name: 1})
        assert caught.value.model == "o/chat"
    with pytest.raises(ConfigError, match="the entry's own key revision"):
        argv(extra_args={"revision": "dev"})


def test_the_environment_keeps_an_engine_offline_and_takes_the_models_own() -> None:
    spec = launch_spec(CONFIG, ModelConfig(env={"A": "b"}), CHAT, (CPU,), GIB, "id", 33300)
    assert (
        spec.env["HF_HUB_OFFLINE"]
        == spec.env["VLLM_SERVER_DEV_MODE"]
        == spec.env["VLLM_NO_USAGE_STATS"]
        == "1"
    )
    assert spec.env["A"] == "b"
    assert "CUDA_VISIBLE_DEVICES" not in spec.env
    assert (spec.launch_id, spec.port_wanted, spec.mode, spec.devices) == ("id", 33300, "auto", ("cpu",))
    spec = launch_spec(CONFIG, ModelConfig(engine_python="/p"), CHAT, (GPU, GPU2), GIB, "id")
    assert spec.devices == ("GPU-1", "GPU-2")
    assert spec.env["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    assert spec.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert spec.python == "/p"


def test_need_is_weights_and_kv_cache_and_the_rest() -> None:
    size = estimate(CHAT, ModelConfig(), CONFIG, CPU)
    assert size.weights_bytes == 270 * MIB
    assert size.kv_bytes == (8192 + 128) * SMOLLM_TOKEN
    assert size.overhead_bytes == CPU_OVERHEAD_BYTES
    assert size.need_bytes == size.weights_bytes + size.kv_bytes + size.overhead_bytes
    assert size.context_length == 8192
    assert estimate(CHAT, ModelConfig(), CONFIG, GPU).overhead_bytes == CUDA_OVERHEAD_BYTES


def test_a_long_context_gets_no_more_than_the_default_bound() -> None:
    long = dataclasses.replace(CHAT, context_length=131072)
    size = estimate(long, ModelConfig(), CONFIG, CPU)
    assert size.kv_bytes == CONFIG.kv_default_max
    assert size.context_length == (CONFIG.kv_default_max // (SMOLLM_TOKEN * 128) - 1) * 128
    wanted = estimate(long, ModelConfig(max_model_len=65536), CONFIG, CPU)
    assert wanted.kv_bytes == (65536 + 128) * SMOLLM_TOKEN
    assert wanted.context_length == 65536


def test_float32_weights_are_halved_unless_they_stay_so() -> None:
    assert estimate(BERT, ModelConfig(), CONFIG, CPU).weights_bytes == 45 * MIB
    assert estimate(BERT, ModelConfig(dtype="float32"), CONFIG, CPU).weights_bytes == 90 * MIB


@pytest.mark.parametrize(
    ("model", "config", "parts"),
    [
        ({"tensor_parallel_size": 2}, {"num_key_value_heads": 4}, (2, 2)),
        ({"tensor_parallel_size": 8}, {"num_key_value_heads": 4}, (8, 4)),  # each rank keeps a head
        ({"tensor_parallel_size": 4}, {"kv_lora_rank": 512, "qk_rope_head_dim": 64}, (4, 1)),
        ({"extra_args": {"pipeline-parallel-size": 3}}, {"num_key_value_heads": 4}, (3, 3)),
        (
            {"tensor_parallel_size": 2, "extra_args": {"pipeline_parallel_size": 3}},
            {"num_key_value_heads": 4},
            (6, 6),
        ),
        ({"extra_args": {"--tensor-parallel-size": 2}}, {"num_key_value_heads": 4}, (2, 2)),
    ],
)
def test_several_devices_share_weights_and_kv_cache(model: dict, config: dict, parts: tuple) -> None:
    shape = {"num_hidden_layers": 12, "num_attention_heads": 8, "hidden_size": 512, **config}
    files = dataclasses.replace(CHAT, config=shape)
    one = estimate(files, ModelConfig(), CONFIG, GPU)
    settings = ModelConfig(**model)
    several = estimate(files, settings, CONFIG, GPU)
    assert world_size(settings) == parts[0]
    assert several.weights_bytes == -(-one.weights_bytes // parts[0])
    assert several.kv_bytes == one.kv_bytes // parts[1]
    assert several.overhead_bytes == one.overhead_bytes


@pytest.mark.parametrize(
    ("stored", "config", "dtype", "loaded"),
    [
        ((100, 0), {}, "auto", 100),
        ((100, 100), {}, "auto", 50),
        ((100, 100), {}, "float32", 100),
        ((100, 0), {}, "float32", 200),
        ((100, 20), {}, "float32", 180),
        ((100, 0), {"quantization_config": {"quant_method": "awq"}}, "auto", 100),  # packed integers
        ((100, 0), {"quantization_config": {"quant_method": "fp8"}}, "float32", 100),
        ((100, 0), {}, "float16", 100),
    ],
)
def test_weights_as_they_are_held(stored: tuple[int, int], config: dict, dtype: str, loaded: int) -> None:
    files = dataclasses.replace(CHAT, weights_bytes=stored[0], float32_bytes=stored[1], config=config)
    assert estimate(files, ModelConfig(dtype=dtype), CONFIG, GPU).weights_bytes == loaded


@pytest.mark.parametrize(("cache", "size"), [("auto", 2), ("fp8", 1), ("fp8_e5m2", 1), ("int8", 1)])
def test_a_quantized_kv_cache_takes_less(cache: str, size: int) -> None:
    model = ModelConfig(extra_args={"kv_cache_dtype": cache})
    assert estimate(CHAT, model, CONFIG, GPU).kv_bytes == (8192 + 128) * SMOLLM_TOKEN // 2 * size


def test_a_gpu_gives_a_long_context_more_than_the_least() -> None:
    long = dataclasses.replace(CHAT, context_length=2**20)
    assert estimate(long, ModelConfig(), CONFIG, GPU).kv_bytes == 10 * GIB
    small = DeviceInfo("GPU-1", "cuda", 0, "A GPU", GIB)
    assert estimate(long, ModelConfig(), CONFIG, small).kv_bytes == CONFIG.kv_default_max


def test_a_given_share_is_the_need() -> None:
    size = estimate(CHAT, ModelConfig(gpu_memory_utilization=0.5), CONFIG, CPU)
    assert size.need_bytes == 4 * GIB
    tiny = estimate(CHAT, ModelConfig(gpu_memory_utilization=0.001), CONFIG, CPU)
    assert tiny.kv_bytes == 2 * 128 * SMOLLM_TOKEN


@pytest.mark.parametrize(
    ("config", "per_token"),
    [
        ({"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}, 2 * 2 * 4 * 16 * 2),
        ({"n_layer": 2, "n_head": 4, "n_embd": 64}, 2 * 2 * 4 * 16 * 2),
        ({"text_config": {"num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 8}}, 2 * 8 * 2),
        ({"num_hidden_layers": 3, "kv_lora_rank": 512, "qk_rope_head_dim": 64}, 3 * 576 * 2),
        (
            {"layer_types": ["linear_attention", "full_attention"], "num_attention_heads": 1, "head_dim": 8},
            2 * 8 * 2,
        ),
    ],
)
def test_shapes_of_models(config: dict, per_token: int) -> None:
    files = dataclasses.replace(CHAT, config=config, context_length=1024)
    assert estimate(files, ModelConfig(), CONFIG, CPU).kv_bytes == (1024 + 128) * per_token


def test_an_unknown_shape_gets_the_default() -> None:
    files = dataclasses.replace(CHAT, config={}, context_length=0)
    assert estimate(files, ModelConfig(), CONFIG, CPU).kv_bytes == CONFIG.kv_default_max
