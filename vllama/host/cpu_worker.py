"""A CPU worker that really sleeps: vLLM's own answers 200 on CPU and frees nothing. Runs in the engine's process.

`--worker-cls vllama.host.cpu_worker.SleepingCPUWorker`. Level 1 frees the KV cache; level 2 the weights too, in place:
each tensor keeps its identity and loses its memory, so that whatever refers to it sees the memory that comes back.
"""

import ctypes
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch._dynamo.config
from vllm.config import set_current_vllm_config
from vllm.logger import init_logger
from vllm.v1.worker.cpu_worker import CPUWorker

logger = init_logger(__name__)

# CPU kernels keep a packed copy of a layer's weight in this closure, and often nothing beside it; loading makes a new one.
_PACKED = "cpu_linear"


class SleepingCPUWorker(CPUWorker):  # type: ignore[misc]  # vLLM has no types where vllama is checked
    """vLLM's CPU worker with memory that sleeps. A wake of weights wants `reload_weights` before the next request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._freed: dict[str, list[tuple[torch.UntypedStorage, int]]] = {"weights": [], "kv_cache": []}
        self._unloaded: list[str] = []
        if self.model_config.enforce_eager:
            # Nothing is to be compiled; but vLLM's sampler compiles one helper at the first request that wants
            # log-probabilities (2 s, against microseconds of use), and our warm-up is such a request.
            torch._dynamo.config.disable = True  # noqa: SLF001 - its public name

    def sleep(self, level: int = 1) -> None:
        """The memory of this level is given back to the system. Raises ValueError for a level that there is not."""
        if level not in (1, 2):
            raise ValueError(
                f"sleep level {level} does not exist on CPU: use 1 (KV cache) or 2 (weights too)"
            )
        if level == 2:
            self._free_weights()
        self._free("kv_cache", self._kv_tensors())
        _trim()
        freed = {tag: sum(size for _, size in storages) for tag, storages in self._freed.items()}
        logger.info("Asleep at level %d: bytes freed by tag: %s", level, freed)

    def wake_up(self, tags: list[str] | None = None) -> None:
        """The memory is taken again: the KV cache is zero, the weights are unusable until `reload_weights`."""
        for tag in self._freed if tags is None else tags:
            for storage, size in self._freed.get(tag, []):
                storage.resize_(size)
                _bytes_of(storage).zero_()
            if tag == "weights" and self._freed[tag]:
                self._unloaded = [name for name, weight in self._weights() if _spoil(weight)]
            if tag in self._freed:
                self._freed[tag] = []

    def reload_weights(self, *args: Any, **kwargs: Any) -> None:
        """vLLM's own, in place. Raises RuntimeError when it left a weight unloaded that was freed."""
        super().reload_weights(*args, **kwargs)
        unloaded, self._unloaded = set(self._unloaded), []
        if still := [name for name, weight in self._weights() if name in unloaded and _is_spoilt(weight)]:
            raise RuntimeError(
                f"this model cannot sleep at level 2: not loaded again: {', '.join(still[:5])}"
            )
        self._pack_again()
        _trim()

    def _pack_again(self) -> None:
        """A layer tied to another's weight is not loaded itself, so nobody has packed it anew."""
        asleep = [
            (name, layer) for name, layer in self.model_runner.get_model().named_modules() if _refuses(layer)
        ]
        for name, layer in asleep:
            with set_current_vllm_config(self.vllm_config):
                layer.quant_method.process_weights_after_loading(layer)
            if _refuses(layer):
                raise RuntimeError(f"this model cannot sleep at level 2: {name} is not packed again")

    def _weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self.model_runner.get_model().named_parameters()

    def _free_weights(self) -> None:
        if self.vllm_config.speculative_config is not None:
            # Only the main model is loaded again by vLLM.
            raise ValueError("sleep level 2 is not possible with a draft model on CPU: use level 1 or 3")
        self._free("weights", (weight for _, weight in self._weights()))
        for layer in self.model_runner.get_model().modules():
            if _PACKED in layer.__dict__ and layer.cpu_linear is not torch.nn.functional.linear:
                layer.cpu_linear = _not_loaded

    def _kv_tensors(self) -> Iterator[torch.Tensor]:
        yield from _tensors(self.model_runner.kv_caches)
        for layer in self.compilation_config.static_forward_context.values():
            yield from _tensors(getattr(layer, "kv_cache", None))

    def _free(self, tag: str, tensors: Iterable[torch.Tensor]) -> None:
        """These tensors have no memory; tied ones share a storage, which is freed once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            # What is freed already has no bytes; memory that a file or another owner backs cannot be taken from it.
            if storage.nbytes() and storage.resizable():
                self._freed[tag].append((storage, storage.nbytes()))
                storage.resize_(0)


def _tensors(value: object) -> Iterator[torch.Tensor]:
    """The tensors in whatever nesting of lists a KV cache has."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def _spoil(weight: torch.Tensor) -> bool:
    """The first number of this weight is NaN, so that it shows whether the whole was loaded again."""
    if not weight.is_floating_point() or weight.numel() == 0:
        return False
    weight.data.view(-1)[:1].fill_(float("nan"))
    return True


def _is_spoilt(weight: torch.Tensor) -> bool:
    return bool(torch.isnan(weight.data.view(-1)[:1]).item())


def _not_loaded(*_: object) -> torch.Tensor:
    raise RuntimeError("the weights are asleep: wake_up, then reload_weights")


def _refuses(layer: torch.nn.Module) -> bool:
    return layer.__dict__.get(_PACKED) is _not_loaded


def _trim() -> None:
    """What the allocator holds free goes back to the system: glibc's, or tcmalloc where that is preloaded."""
    libc = ctypes.CDLL(None)
    for name in ("MallocExtension_ReleaseFreeMemory", "malloc_trim"):
        release: Callable[..., Any] | None = getattr(libc, name, None)
        if release is not None:
            release(*([0] if name == "malloc_trim" else []))
