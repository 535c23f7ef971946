"""What a fake engine answers: text, vectors and scores that depend on the question and the weights alone.

`salt` stands for the weights: "" when they are whole, anything else is what a model says that lost them.
"""

import base64
import hashlib
import math
import random
import re
import struct

DIMENSIONS = 32
CHAT_TOKENS_MAX = 12
WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sun",
    "sea",
    "red",
    "blue",
    "runs",
    "sleeps",
    "sings",
    "over",
    "and",
    "then",
]
KNOWN = {"capital of france": ["The", "capital", "of", "France", "is", "Paris."]}


def _random(*parts: object) -> random.Random:
    return random.Random(hashlib.sha256("\0".join(map(str, parts)).encode()).digest())


def tokens(prompt: str, wanted: int | None, salt: str, *, endless: bool = False) -> tuple[list[str], str]:
    """The tokens of the answer and why it ends: deterministic, at most `wanted`."""
    draw = _random(prompt, salt)
    known = next((words for key, words in KNOWN.items() if not salt and key in prompt.lower()), None)
    words = known or [draw.choice(WORDS) for _ in range(draw.randint(4, CHAT_TOKENS_MAX))]
    while endless and wanted is not None and len(words) < wanted:
        words = [*words, draw.choice(WORDS)]
    texts = [word if index == 0 else f" {word}" for index, word in enumerate(words)]
    if wanted is not None and wanted < len(texts):
        return texts[:wanted], "length"
    return texts, "length" if endless else "stop"


def logprobs(prompt: str, texts: list[str], salt: str, top: int) -> dict:
    """The completions API's `logprobs`: each token with the likeliest beside it."""
    draw = _random(prompt, salt, "logprobs")
    values = [-draw.uniform(0.05, 0.5) if not salt else -draw.uniform(8, 12) for _ in texts]
    tops = [
        {text: value} | {f"~{rank}": value - rank for rank in range(1, top)}
        for text, value in zip(texts, values, strict=True)
    ]
    offsets = [len("".join(texts[:index])) for index in range(len(texts))]
    return {"text_offset": offsets, "token_logprobs": values, "tokens": texts, "top_logprobs": tops}


def vector(text: str, salt: str) -> list[float]:
    """A bag of words on the unit sphere: texts that share words are nearer."""
    total = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()) or [""]:
        draw = _random(word, salt)
        total = [value + draw.gauss(0, 1) for value in total]
    norm = math.hypot(*total) or 1.0
    return [value / norm for value in total]


def encoded(values: list[float], encoding: str) -> object:
    """A vector as the embeddings API gives it: numbers, or base64 of little-endian float32."""
    if encoding == "base64":
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    return values


def score(first: str, second: str, salt: str) -> float:
    a, b = vector(first, salt), vector(second, salt)
    return 1 / (1 + math.exp(-4 * sum(x * y for x, y in zip(a, b, strict=True))))
