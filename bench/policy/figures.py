"""Every figure that the simulated engines go by, each with its source.

[P] published, as design/vllm.md or the pages it was made from tell it; [D] derived from these; [A] assumed: it sets how high the
load is, which every policy sees alike. Bytes are decimal, as link rates are.
"""

from dataclasses import dataclass

GB = 10**9
GIB = 2**30

# A100 with 80 GB on PCIe Gen4 x16.
DEVICE_BYTES = 80 * GIB
LINK = 0.85 * 24.8 * GB  # [P] 24.8 GB/s pinned, host to device, of which vLLM's level-1 wake reaches 86 %
PINNING = 3.0 * GB  # [P] the first level-1 sleep pins host RAM at 2 to 4 GB/s
RELOADING = 2.85 * GB  # [D] level-2 wakes read weights from the page cache at 2.5 to 3.2 GB/s
LOADING = 4.0 * GB  # [P] safetensors mapped from the page cache
HOST_RAM_BYTES = (
    512 * GIB
)  # [A] of the machine per device; half of it is for level-1 sleepers, vllama's default

# [D] start: 37 s (0.6B), 58 s (4B), 47 s (30B), 97 s (235B on four GPUs) are published; a line through the smaller three
START_S = 40.0
WAKE_1_S, WAKE_2_S = 0.2, 0.5  # [P] the fixed parts of the wake model: 0.1 to 0.3 s, 0.5 s
SLEEP_S = 0.1  # [P] of a level-1 sleep whose RAM is pinned: 0.1 s (0.6B), 2.8 s (61 GB)
SLEEP_2_S = 0.3  # [P] 0.1 s (0.6B), 0.3 s (8B), 0.45 s (4B)
STOP_S = 1.0  # [A] a graceful stop
RESIDUE = (0.8 * GIB, 2.9 * GIB)  # [P] of a sleeper: 1B and 32B
SPARE = 6 * GB  # [A] KV cache and activations, whatever the model
MEASURE_S = 0.005  # [A] NVML

CONCURRENT_MAX = 16  # [A] requests that a device serves at once; the rest wait in its engines' queues
PREFILL = (
    8000.0  # [A] tokens a second of a request, 8B; larger and smaller models in proportion to their weights
)
DECODE = 60.0  # [A] tokens a second of a request, 8B; by the square root: small models are bound by launches


@dataclass(frozen=True)
class Size:
    """One size of model, and what everything takes that is done with it."""

    name: str
    weights: int

    @property
    def footprint(self) -> int:
        return self.weights + SPARE

    @property
    def residue(self) -> int:
        low, high = RESIDUE
        return round(low + (high - low) * min(self.weights / (64 * GB), 1.0))

    @property
    def start_s(self) -> float:
        return START_S + self.weights / LOADING

    def wake_s(self, level: int) -> float:
        return WAKE_1_S + self.weights / LINK if level == 1 else WAKE_2_S + self.weights / RELOADING

    def sleep_s(self, level: int, *, pinned: bool) -> float:
        if level == 2:
            return SLEEP_2_S
        return SLEEP_S + self.weights / (LINK if pinned else PINNING)

    def serve_s(self, context: int, generated: int) -> float:
        part = self.weights / SIZES["8B"].weights
        return context / (PREFILL / part) + generated / (DECODE / part**0.5)


SIZES = {
    size.name: size
    for size in (
        Size("0.6B", 1_200_000_000),
        Size("4B", 8 * GB),
        Size("8B", 16 * GB),
        Size("14B", 28 * GB),
        Size("32B", 64 * GB),
    )
}
