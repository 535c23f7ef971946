"""What the fake answers on the routes of pooling models: embeddings, scores, classes."""

import time

import fake_answers as answers

EMBED = ("/v1/embeddings",)
CLASSIFY = ("/classify",)
SCORE = ("/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank")


def pool(path: str, body: dict, model: str, salt: str) -> dict:
    """What a pooling route answers; `salt` is what the weights have become."""
    head = {"id": "pool-fake", "object": "list", "created": int(time.time()), "model": model}
    if path in EMBED:
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        form = body.get("encoding_format", "float")
        data = [
            {
                "index": i,
                "object": "embedding",
                "embedding": answers.encoded(answers.vector(str(t), salt), form),
            }
            for i, t in enumerate(texts)
        ]
        return head | {"data": data, "usage": _usage(texts)}
    if path in CLASSIFY:
        chance = answers.score(str(body["input"]), "", salt)
        probs = {"label": "LABEL_0", "probs": [chance, 1 - chance], "num_classes": 2}
        return head | {"data": [{"index": 0} | probs]}
    if "rerank" in path:
        documents = [str(document) for document in body["documents"]]
        query = str(body["query"])
        results = [
            {"index": i, "document": {"text": d}, "relevance_score": answers.score(query, d, salt)}
            for i, d in enumerate(documents)
        ]
        results.sort(key=lambda result: -result["relevance_score"])
        results = results[: body.get("top_n") or None]
        return {
            "id": "rerank-fake",
            "model": model,
            "usage": _usage(documents),
            "results": results,
        }
    first, second = _pair(body)
    data = [
        {"index": i, "object": "score", "score": answers.score(a, b, salt)}
        for i, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    return head | {"data": data, "usage": _usage([*first, *second])}


def _pair(body: dict) -> tuple[list[str], list[str]]:
    """Both sides of a score request, one against many repeated."""
    first = body["queries"] if "queries" in body else body["text_1"]
    second = body["documents"] if "documents" in body else body["text_2"]
    first = first if isinstance(first, list) else [first]
    second = second if isinstance(second, list) else [second]
    return (first * len(second) if len(first) == 1 else first), second


def _usage(texts: list) -> dict[str, int]:
    count = sum(len(str(text).split()) for text in texts)
    return {"prompt_tokens": count, "total_tokens": count}
