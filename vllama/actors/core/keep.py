"""How long a model stays awake after its last request, where a caller has said so: instead of `unload_timeout`."""

from vllama.actors.core.facts import fact

FOREVER = -1.0


@fact
class KeepAlive:
    """From now on the model is idle for `for_s` before it sleeps; below 0 never, at 0 with its last request. It wakes nothing."""

    for_s: float
