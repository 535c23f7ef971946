"""Why an engine ended, as far as its own log tells. Pure."""

# In this order: a lost port or a neighbour's change is tried again at once, memory by evicting one more victim.
_PORT = ("address already in use", "errno 98", "eaddrinuse")
_PROFILING = ("error in memory profiling",)
_OOM = (
    "cuda out of memory",
    "hip out of memory",
    "cuda error: out of memory",
    "outofmemoryerror",
    "can't allocate memory",
    "cannot allocate memory",
    "memoryerror",
    "no available memory for the cache blocks",
    "is less than desired gpu memory utilization",
    "is less than desired cpu memory utilization",
    "is less than requested memory for kv",
    "needed, which is larger than the available kv cache memory",
    "not enough gpu memory available to serve",
)

_CORE_FAILED = "enginecore failed to start"


def core_failed(log: str) -> bool:
    """Its own last word: it will never be ready. It may hang over its workers then, for ever, and the API server over it."""
    return _CORE_FAILED in log.lower()


def why_exited(log: str, *, was_ready: bool) -> str:
    """`port`, `profiling`, `oom` or "". An engine that was ready has had its port and its profile."""
    text = log.lower()
    if not was_ready and any(sign in text for sign in _PORT):
        return "port"
    if not was_ready and any(sign in text for sign in _PROFILING):
        return "profiling"
    if any(sign in text for sign in _OOM):
        return "oom"
    return ""
