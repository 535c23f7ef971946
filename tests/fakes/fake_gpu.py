"""The GPUs of the fake driver (fake_nvml.c) as a test makes and breaks them. Fake engines use them by fake_cuda.py."""

import subprocess
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

    def held_by(self, pid: int, gpu: str = "gpu0") -> int:
        """What this process holds, as it says itself."""
        try:
            return int((self.folder / gpu / "pids" / str(pid)).read_text().split()[0])
        except (FileNotFoundError, IndexError):
            return 0

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
