"""The one-token probe: what an engine is asked after its start and each wake, and when two answers agree.

Pure. A level-2 wake that lost its weights answers garbage with status 200, so only the numbers can tell.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Json: TypeAlias = Any

PROMPT = "The capital of France is"
TEXTS = ("A cat sits on the mat.", "A kitten sits on a rug.")

COMPLETIONS = "/v1/completions"
LOGPROB_TOLERANCE = 0.25
COSINE_MIN = 0.999
SCORE_TOLERANCE = 0.01
TOP_LOGPROBS = 5


@dataclass(frozen=True, slots=True)
class Reference:
    """What a probe answered: the first token with the log-probabilities beside it, or a vector, or scores."""

    path: str
    token: str = ""
    logprobs: Mapping[str, float] = field(default_factory=dict)
    numbers: tuple[float, ...] = ()


def probe_calls(kind: str, model: str) -> list[tuple[str, dict[str, object]]]:
    """The probe of a kind of model, best first (a classifier has no /score). Empty: not probed."""
    match kind:
        case "chat":
            body: dict[str, object] = {"model": model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0}
            # Tokens by number: as text, those that are half a character are all the same.
            return [(COMPLETIONS, {**body, "logprobs": TOP_LOGPROBS, "return_tokens_as_token_ids": True})]
        case "embedding":
            return [("/v1/embeddings", {"model": model, "input": TEXTS[0]})]
        case "rerank":
            first, second = TEXTS
            return [
                ("/score", {"model": model, "text_1": first, "text_2": second}),
                ("/classify", {"model": model, "input": first}),
            ]
        case _:
            return []


def read_reference(path: str, answer: Json) -> Reference:
    """Reads a 200 answer. Raises ValueError, TypeError, KeyError or IndexError when it is not one."""
    match path:
        case "/v1/completions":
            shown = answer["choices"][0]["logprobs"]
            token = str(shown["tokens"][0])
            logprobs = {str(name): _finite(value) for name, value in (shown["top_logprobs"][0] or {}).items()}
            return Reference(path, token, {**logprobs, token: _finite(shown["token_logprobs"][0])})
        case "/v1/embeddings":
            return Reference(path, numbers=_numbers(answer["data"][0]["embedding"]))
        case "/classify":
            return Reference(path, numbers=_numbers(answer["data"][0]["probs"]))
        case _:
            return Reference(path, numbers=_numbers([item["score"] for item in answer["data"]]))


def mismatch(reference: Reference, answer: Reference | None) -> str:
    """Says how an answer differs from the reference beyond the tolerance; "" when it is the same."""
    if answer is None or answer.path != reference.path:
        return f"{reference.path} is not answered any more"
    if reference.path == COMPLETIONS:
        return _token_mismatch(reference, answer)
    if len(reference.numbers) != len(answer.numbers):
        return f"{len(answer.numbers)} numbers instead of {len(reference.numbers)}"
    if reference.path == "/v1/embeddings":
        cosine = _cosine(reference.numbers, answer.numbers)
        return "" if cosine >= COSINE_MIN else f"cosine {cosine:.4f}, at least {COSINE_MIN} wanted"
    worst = max((abs(a - b) for a, b in zip(reference.numbers, answer.numbers, strict=True)), default=0.0)
    return (
        "" if worst <= SCORE_TOLERANCE else f"a score is off by {worst:.4f}, at most {SCORE_TOLERANCE} wanted"
    )


def _token_mismatch(reference: Reference, answer: Reference) -> str:
    """The reference's token must still be as likely, but near-equal tokens may swap places."""
    before = reference.logprobs[reference.token]
    now = answer.logprobs.get(reference.token)
    if now is None:
        return f"first token {answer.token!r} instead of {reference.token!r}"
    if abs(now - before) > LOGPROB_TOLERANCE:
        return f"log-probability of {reference.token!r} is {now:.3f}, was {before:.3f}"
    return ""


def _cosine(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    norms = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def _numbers(values: Json) -> tuple[float, ...]:
    numbers = tuple(_finite(value) for value in values)
    if not numbers:
        raise ValueError("no numbers")
    return numbers


def _finite(value: Json) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number
