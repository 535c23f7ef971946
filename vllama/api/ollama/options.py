"""Ollama's `options` as vLLM's sampling parameters. What vLLM has not is refused where it would change the text, and ignored
where it speaks of how llama.cpp runs a model."""

from collections.abc import Callable, Mapping
from typing import Any

from vllama.errors import BadRequest, cited

Value = Callable[[str, Any], Any]


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f'option "{name}" must be of type float')
    return value


def _integer(name: str, value: Any) -> int:
    number = _number(name, value)
    if number != int(number):
        raise BadRequest(f'option "{name}" must be of type integer')
    return int(number)


def _texts(name: str, value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadRequest(f'option "{name}" must be of type array of strings')
    return texts


# Ollama's name -> vLLM's, and what the value must be.
SAMPLING: Mapping[str, tuple[str, Value]] = {
    "seed": ("seed", _integer),
    "temperature": ("temperature", _number),
    "top_k": ("top_k", _integer),
    "top_p": ("top_p", _number),
    "min_p": ("min_p", _number),
    "repeat_penalty": ("repetition_penalty", _number),
    "presence_penalty": ("presence_penalty", _number),
    "frequency_penalty": ("frequency_penalty", _number),
    "stop": ("stop", _texts),
}
# Samplers of llama.cpp: harmless at the value at which they do nothing.
OFF: Mapping[str, float] = {"mirostat": 0, "tfs_z": 1, "typical_p": 1}
# How llama.cpp loads and runs a model: an engine is started by models.yaml alone.
IGNORED = frozenset({
    "num_ctx", "num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread", "numa", "low_vram", "f16_kv", "logits_all",
    "vocab_only", "use_mmap", "use_mlock", "embedding_only", "repeat_last_n", "penalize_newline", "mirostat_tau", "mirostat_eta",
    "draft_num_predict",
})  # fmt: skip


def sampling(options: Any) -> dict[str, Any]:
    """The parameters for a body to vLLM. Names that nobody knows are passed over, as Ollama does. Raises BadRequest."""
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise BadRequest("options must be an object")
    found: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name in SAMPLING:
            theirs, checked = SAMPLING[name]
            found[theirs] = checked(name, value)
        elif name == "num_predict":
            if (wanted := _integer(name, value)) >= 0:  # below: until the model ends
                found["max_tokens"] = max(wanted, 1)
        elif name in OFF and _number(name, value) != OFF[name]:
            raise BadRequest(
                f'option "{name}" is a sampler of llama.cpp that vLLM has not: leave it out, or use top_k, top_p and min_p'
            )
    return found


def form(given: Any) -> dict[str, Any]:
    """`format`: any JSON object, or one of a schema. Raises BadRequest."""
    if given is None or given == "":
        return {}
    if given == "json":
        return {"response_format": {"type": "json_object"}}
    if isinstance(given, dict):
        schema = {"name": "format", "schema": given, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    raise BadRequest(f'invalid format: {cited(repr(given))}; expected "json" or a JSON schema')


def thinking(given: Any) -> dict[str, Any]:
    """`think`: on, off, or how hard, for the models whose template or engine knows of it. Raises BadRequest."""
    if given is None:
        return {}
    if isinstance(given, bool):
        return {"chat_template_kwargs": {"enable_thinking": given, "thinking": given}}
    if given in ("low", "medium", "high"):
        return {"reasoning_effort": given}
    raise BadRequest(
        f'invalid think value: {cited(repr(given))} (must be true, false, "high", "medium" or "low")'
    )


def logprobs(given: Any, top: Any) -> dict[str, Any]:
    """What the chat route wants of both. Raises BadRequest."""
    wanted = 0 if top is None else _integer("top_logprobs", top)
    if not 0 <= wanted <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20")
    return {"logprobs": True, "top_logprobs": wanted} if given or wanted else {}
