"""vllama: one OpenAI-compatible endpoint in front of every vLLM model on the machine."""

__version__ = "0.1.0"
