"""GET /metrics: figures for machines. figures.py has ours, scrape.py fetches the engines' own, text.py puts them together."""

from vllama.api.metrics.endpoint import Metrics

__all__ = ["Metrics"]
