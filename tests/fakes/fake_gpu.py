"""The GPUs of the fake driver (fake_nvml.c): a folder that tests write, and that fake engines take memory from and give back to.

Engines take under a lock, so that free memory is never given twice. Each transition is written into `log`, one line at its
begin and one at its end; an engine that finds another one in transition on its GPU dies of it, as real ones may.
"""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIB = 2**30
NAME = "libnvidia-ml.so.1"
SOURCE = Path(__file__).resolve().parent / "fake_nvml.c"


class FakeGpus:
    """What a test does to the machine's GPUs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, total: int, uuid: str = "", *, mig: tuple[int, ...] = (), reserved: int = 0) -> str:
        """One more GPU; `mig` are the sizes of its MIG devices. Returns its UUID."""
        number = len(list(self.folder.glob("gpu*")))
        gpu = self.folder / f"gpu{number}"
        uuid = uuid or f"GPU-{number:08x}-fake"
        _describe(gpu, uuid, f"Fake GPU {number}", total, reserved)
        for slot, size in enumerate(mig):
            _describe(gpu / f"mig{slot}", f"MIG-{number}{slot}-fake", f"Fake GPU MIG {slot}", size, 0)
        return uuid

    def set(self, name: str, text: str | None = "1") -> None:
        """Write a switch (hide_pids, hold, old, broken, gpu0/lost...), or take it away (None)."""
        path = self.folder / name
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(text)

    def hold_by(self, pid: int, size: int, gpu: str = "gpu0") -> None:
        """This process, whatever it is, holds so much."""
        (self.folder / gpu / "pids" / str(pid)).write_text(f"{size} 0\n")

    def log(self) -> list[list[str]]:
        """Transitions in their order: [begin | end, what, GPU, pid]."""
        try:
            return [line.split() for line in (self.folder / "log").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def env(self, library: Path) -> dict[str, str]:
        """What a server needs in its environment to see these GPUs. The engines inherit it."""
        return {"FAKE_NVML": str(self.folder), "LD_LIBRARY_PATH": str(library.parent)}


def compile_driver(folder: Path) -> Path:
    """The driver's library, built by the system's C compiler."""
    library = folder / NAME
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Wno-format-truncation", f"-Wl,-soname,{NAME}",
         "-o", str(library), str(SOURCE)],
        check=True, timeout=60,
    )  # fmt: skip
    return library


def _describe(folder: Path, uuid: str, name: str, total: int, reserved: int) -> None:
    (folder / "pids").mkdir(parents=True)
    for key, value in {"uuid": uuid, "name": name, "total": total, "reserved": reserved}.items():
        (folder / key).write_text(f"{value}\n")


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
