"""The settings that the cores decide by, and what a model needs: plain facts, no behaviour."""

from vllama.actors.core.facts import fact


@fact
class Need:
    """What a fresh start takes of each device: `weights_bytes` is exact, `bytes` an estimate. `devices` may be empty: any.
    `copy_bytes` is what its first sleep at level 1 takes of the host's RAM, all devices together (0: nothing, as on CPU)."""

    bytes: int
    weights_bytes: int
    devices: tuple[str, ...] = ()
    copy_bytes: int = 0


@fact
class Policy:
    """The settings of one instance; names and units as in config.py."""

    queue_max: int = 1024
    sleep_level: int = 2
    any_level: bool = False  # nobody has named one: the broker may choose another where it knows better
    unload_timeout: float = 1800.0
    unload_mode: int = 2
    stop_timeout_s: float = 6 * 3600.0
    drain_timeout_s: float | None = None
    pinned: bool = False
    priority: int = 0  # the higher, the sooner served and the later evicted
    on_gpu: bool = False  # where an engine sleeps only if it was started with vLLM's sleep mode
    pin_idle_s: float = (
        5.0  # level-1 models: idle for so long after the load, they sleep and wake once (it pins host RAM)
    )
    residue_growth_max_bytes: int = (
        2**30
    )  # a sleeper that holds so much more than at its first sleep is stopped next time
    misses_max: int = 2  # failed wakes from a level that make it unsafe for the model
    restarts_max: int = 3
    restarts_period_s: float = 600.0
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0


@fact
class BrokerPolicy:
    """The broker's settings; names and units as in config.py."""

    max_wait_s: float = 60.0
    wait_timeout_s: float = 600.0
    busy_grace_s: float = 10.0
    memory_return_timeout_s: float = 10.0
    policy: str = "lru"
    sleep_ram_max_bytes: int = 0
