"""Ollama's API over the same actors and the same data path: what its clients send is put into vLLM's words, and the answers back
into theirs. What maps to what is in docs/ollama.md."""
