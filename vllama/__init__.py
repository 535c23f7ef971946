"""vllama: one OpenAI-compatible endpoint in front of every vLLM model on the machine."""

from vllama import sources

__version__ = "0.1.0"

sources.choose()
