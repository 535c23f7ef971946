"""The GPUs of the fake driver as a fake engine uses them: memory is taken and given back, with vLLM's own demands and deaths.

Engines take under a lock, so that free memory is never given twice. Each transition is written into `log`, one line at its
begin and one at its end; an engine that finds another one in transition on its GPU dies of it, as real ones may.
"""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fake_faults import Faults

GIB = 2**30
CONTEXT_BYTES = 256 * 2**20  # of a CUDA context: what a sleeper still holds


class Gpu:
    """One GPU as an engine sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = folder.parent if folder.name.startswith("gpu") else folder.parent.parent
        self._mine = folder / "pids" / str(os.getpid())

    @property
    def uuid(self) -> str:
        return (self.folder / "uuid").read_text().strip()

    @property
    def total(self) -> int:
        return int((self.folder / "total").read_text()) - int((self.folder / "reserved").read_text())

    def free(self) -> int:
        return self.total - sum(self._counted(path) for path in self._files())

    def take(self, size: int) -> bool:
        """Whether there was so much."""
        with self._locked():
            if size > self.free():
                return False
            held, late = _read(self._mine)
            self._write(held + size, late)
        return True

    def give_back(self, size: int) -> None:
        with self._locked():
            held, late = _read(self._mine)
            self._write(held - size, late + size if (self._root / "hold").exists() else 0)

    def begin(self, what: str) -> bool:
        """A transition of ours begins; whether it is the only one here."""
        with self._locked():
            self._say("begin", what)
            mark = self.folder / "moving"
            alone = not mark.exists() or not _alive(mark.read_text())
            mark.write_text(str(os.getpid()))
        return alone

    def end(self, what: str) -> None:
        with self._locked():
            self._say("end", what)
            (self.folder / "moving").unlink(missing_ok=True)

    def _say(self, *words: str) -> None:
        with (self._root / "log").open("a") as log:
            log.write(f"{' '.join(words)} {self.folder.name} {os.getpid()}\n")

    def _counted(self, path: Path) -> int:
        held, late = _read(path)
        hold = (self._root / "hold").exists()
        if not _alive(path.name):
            return held + late if hold else 0
        return held + late if hold else held

    def _files(self) -> list[Path]:
        return [path for path in (self.folder / "pids").iterdir() if path.name.isdecimal()]

    def _write(self, held: int, late: int) -> None:
        draft = self._mine.with_name(f".{self._mine.name}")
        draft.write_text(f"{held} {late}\n")
        draft.replace(self._mine)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def visible_gpus() -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves to this engine, in its order; [] where engines run on CPU."""
    root = os.environ.get("FAKE_NVML", "")
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not root or not names:
        return []
    found = [Gpu(path.parent) for path in sorted(Path(root).glob("**/uuid"))]
    by_name = {gpu.uuid: gpu for gpu in found} | {str(number): gpu for number, gpu in enumerate(found)}
    return [by_name[name] for name in names.split(",") if name in by_name]


def _read(path: Path) -> tuple[int, int]:
    try:
        held, late = path.read_text().split()
    except (FileNotFoundError, ValueError):
        return 0, 0
    return int(held), int(late)


def _alive(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"


class GpuBlock:
    """Memory of the same size on each of these GPUs, like fake_engine's Block."""

    def __init__(self, size: int, gpus: Sequence[Gpu]) -> None:
        self._size, self._gpus = size, gpus
        self.held = False
        self.take()

    def take(self) -> None:
        if self.held:
            return
        for index, gpu in enumerate(self._gpus):
            if not gpu.take(self._size):
                raise OutOfMemory(
                    f"CUDA out of memory. Tried to allocate {_gib(self._size)}. GPU {index} has a total capacity of "
                    f"{_gib(gpu.total)} of which {_gib(gpu.free())} is free."
                )
        self.held = True

    def free(self) -> None:
        if self.held:
            for gpu in self._gpus:
                gpu.give_back(self._size)
        self.held = False


class OutOfMemory(Exception):
    """As torch says it."""


class Cuda:
    """The GPUs of one engine: none where it runs on CPU."""

    def __init__(self, args: dict[str, str], faults: Faults) -> None:
        self._args, self._faults = args, faults
        self.gpus = visible_gpus()
        if self.gpus:
            wanted = int(args.get("tensor-parallel-size", 1)) * int(args.get("pipeline-parallel-size", 1))
            if wanted > len(self.gpus):
                sys.exit(
                    f"ValueError: World size ({wanted}) is larger than the number of available GPUs "
                    f"({len(self.gpus)}) in this node."
                )
            self.gpus = self.gpus[:wanted]

    @property
    def sleeps(self) -> bool:
        return not self.gpus or "enable-sleep-mode" in self._args

    def load(self, weights: int, *, cached: bool) -> tuple[GpuBlock, GpuBlock]:
        """Weights and KV cache, after the checks that vLLM makes; the context stays until the process ends."""
        share = float(self._args.get("gpu-memory-utilization", 0.92))
        given = int(self._args.get("kv-cache-memory-bytes") or 0)
        before = []
        for index, gpu in enumerate(self.gpus):
            free, wanted = gpu.free(), int(share * gpu.total)
            if free < wanted:  # even with the size of the KV cache given
                sys.exit(
                    f"ValueError: Free memory on device cuda:{index} ({_gib(free)}/{_gib(gpu.total)}) on startup is "
                    f"less than desired GPU memory utilization ({share}, {_gib(wanted)}). Decrease GPU memory "
                    "utilization or reduce GPU memory used by other processes."
                )
            before.append(free)
        context = int(os.environ.get("FAKE_VLLM_CONTEXT_BYTES", CONTEXT_BYTES))
        part = weights // len(self.gpus)
        try:
            GpuBlock(context, self.gpus)
            loaded = GpuBlock(part, self.gpus)
            while self._faults("hold_profile"):
                time.sleep(0.02)
            for gpu, free in zip(self.gpus, before, strict=True):
                if gpu.free() > free - context - part:
                    sys.exit(
                        f"AssertionError: Error in memory profiling. Initial free memory {_gib(free)}, current free "
                        f"memory {_gib(gpu.free())}. This happens when other processes sharing the same container "
                        "release GPU memory while vLLM is profiling during initialization."
                    )
            room = min(int(share * gpu.total) for gpu in self.gpus) - context - part
            if cached and not given and room <= 0:
                sys.exit(
                    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`."
                )
            return loaded, GpuBlock((given or room) if cached else 0, self.gpus)
        except OutOfMemory as error:
            sys.exit(f"torch.OutOfMemoryError: {error}")

    def begin(self, what: str) -> None:
        """Two in transition on one GPU are the death of one."""
        alone = [gpu.begin(what) for gpu in self.gpus]
        if not all(alone):
            sys.stdout.write("ERROR two engines in transition on one GPU\n")
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    def end(self, what: str) -> None:
        for gpu in self.gpus:
            gpu.end(what)

    def free(self) -> list[int]:
        return [gpu.free() for gpu in self.gpus]


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
