"""The words in which somebody is told that there is no engine: what happened, to which model, what to do next."""

import math

from vllama.actors.core.instance_state import State
from vllama.actors.core.messages import Refusal


def human(size: int) -> str:
    """Bytes as a person reads them: 1.5 GiB, 310 MiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def queue_full(s: State) -> Refusal:
    text = f"{len(s.waiting)} requests wait for {s.model} already; try again later or raise queue_max"
    return Refusal("queue_full", text, retry_after_s=1.0)


def start_failed(s: State, error: str, not_before: float, now: float, *, given_up: bool) -> Refusal:
    """502: there is no engine, because of what happened to the last one; ends with its log's last lines."""
    what = "its engine failed after it had been up" if s.was_ready else "it could not be started"
    log = f" (log: {s.log})" if s.log else ""
    if given_up:
        then = f"It failed too often and is not tried again until `vllama start {s.model}` or `vllama stop {s.model}`."
        return Refusal("start_failed", f"{s.model}: {what}{log}. {then} Last error: {error}")
    wait = max(not_before - now, 0.0)
    when = f"A request in {math.ceil(wait)} s or later" if wait else "The next request"
    text = f"{s.model}: {what}{log}. {when} starts it again. What happened: {error}"
    return Refusal("start_failed", text, retry_after_s=max(wait, 1.0))


def stopped(s: State) -> Refusal:
    return Refusal(
        "stopped", f"{s.model} was stopped by operator while the request waited; ask again to start it"
    )


def put_to_sleep(s: State) -> Refusal:
    return Refusal(
        "stopped", f"{s.model} was put to sleep by operator while the request waited; ask again to wake it"
    )


def shutting_down(s: State) -> Refusal:
    text = f"vllama is shutting down; the request for {s.model} was not started"
    return Refusal("shutting_down", text, retry_after_s=5.0)


def overtaken(s: State, by: str) -> Refusal:
    return Refusal("overtaken", f"another command overtook this one for {s.model}: {by}")


def wanted_awake(s: State) -> Refusal:
    return Refusal("overtaken", f"requests waited for {s.model} and are served now; it stays awake")


def reset(s: State) -> Refusal:
    return Refusal(
        "internal_error", f"vllama met a bug while it handled {s.model} and began anew; please report it"
    )


def never_fits(model: str, weights: int, total: int, device: str, shared: int = 0) -> Refusal:
    """`shared`: what vllama's zygote holds of the device."""
    less = f", of which vllama's zygote holds {human(shared)}" if shared else ""
    text = (
        f"{model} can never fit: its weights are {human(weights)}, device {device} has {human(total)}{less}, "
        f"{weights - total + shared} bytes too few. Raise memory_limit, use a smaller or quantized model, or more devices"
    )
    return Refusal("no_memory", text)


def no_memory(model: str, need: int, free: int, holders: str, waited_s: float) -> Refusal:
    text = (
        f"no memory for {model} after {waited_s:.0f} s: it needs {human(need)}, {human(free)} are free; "
        f"the rest is held by {holders or 'others'}"
    )
    if free >= need:  # it was granted, and its engine ran out of memory all the same
        text += (
            f". Its engine ran out of memory with them: `vllama logs {model}` says at what. A smaller max_model_len "
            "or another kv_cache_memory may help"
        )
    return Refusal("no_memory", text, retry_after_s=10.0)


def no_copy(s: State) -> str:
    """Why a level-1 sleep went deeper."""
    return f"no room in sleep_ram_max_bytes for {human(s.need.copy_bytes)} of weights: deeper than level 1"


def exit_text(s: State, code: int | None, why: str, tail: str) -> str:
    """Why an engine went, with the last lines of its log."""
    reason = s.faulted or {
        "": "",
        "lost": "vllama lost its process",
        "launch": "it could not be launched",
        "core": "its EngineCore failed to start, and did not end by itself",
    }.get(why, why)
    if not reason:
        reason = (
            "the engine was killed by signal " + str(-code)
            if code and code < 0
            else f"the engine exited with code {code}"
        )
    return f"{reason}\n{tail}" if tail else reason
