"""LiteLLM's calls, in a process of their own: it imports slowly, warns, and would ask its maker for prices.

python litellm_calls.py URL CHAT EMBED        one line of JSON: what each call gave
"""

import json
import os
import sys

os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
import litellm

ASK = [{"role": "user", "content": "What is the capital of France?"}]


def main(url: str, chat: str, embed: str) -> None:
    ways = {
        "openai": {"model": f"openai/{chat}", "api_base": f"{url}/v1"},
        "hosted_vllm": {"model": f"hosted_vllm/{chat}", "api_base": f"{url}/v1"},
        "ollama": {"model": f"ollama/{chat}", "api_base": url},
        "ollama_chat": {"model": f"ollama_chat/{chat}", "api_base": url},
        "anthropic": {"model": f"anthropic/{chat}", "api_base": url},
    }
    found = {}
    for name, way in ways.items():
        common = {"messages": ASK, "api_key": "none", "max_tokens": 8, "temperature": 0, **way}
        found[name] = litellm.completion(**common).choices[0].message.content
        parts = litellm.completion(**common, stream=True)
        found[f"{name} stream"] = "".join(part.choices[0].delta.content or "" for part in parts)
    for name, way in ways.items():
        if name in ("openai", "ollama"):
            at = {**way, "model": f"{name}/{embed}"}
            vectors = litellm.embedding(input=["a", "b"], api_key="none", **at).data
            found[f"{name} embedding"] = [len(vector["embedding"]) for vector in vectors]
    text = litellm.text_completion(
        model=f"text-completion-openai/{chat}",
        api_base=f"{url}/v1",
        api_key="none",
        prompt="Once",
        max_tokens=4,
    )
    found["text"] = text.choices[0].text
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
