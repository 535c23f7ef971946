"""What a fork can honour: an engine forked from the zygote has the zygote's environment as its modules read it."""

from collections.abc import Mapping, Sequence

# Read each time they are asked for, not at import: tests/engine/test_fork.py sets each one after the import.
READ_LATE = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "HF_TOKEN",
        "VLLM_API_KEY",
        "VLLM_CPU_KVCACHE_SPACE",
        "VLLM_CPU_NUM_OF_RESERVED_CPU",
        "VLLM_CPU_OMP_THREADS_BIND",
        "VLLM_ENGINE_READY_TIMEOUT_S",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE",
        "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH",
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN",
    }
)


def obstacle(argv: Sequence[str], env: Mapping[str, str], base: Mapping[str, str]) -> str:
    """Why this engine cannot be forked from a zygote that runs with `base`; "" when it can."""
    differs = sorted(name for name, value in env.items() if base.get(name) != value and name not in READ_LATE)
    if differs:
        return f"its environment sets {', '.join(differs)}, which vLLM has read already when it is forked"
    if any(word.partition("=")[0] == "--numa-bind" for word in argv):
        return "--numa-bind needs processes that are spawned"
    return ""
