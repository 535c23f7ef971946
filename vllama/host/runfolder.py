"""What an engine leaves on disk and in /dev/shm, all under names of its own, so that whoever survives it can remove it.

Standard library only. A server's mark holds its pid namespace, pid and start time; a launch adds a number. The folder
is short, because a unix socket's path has at most 107 bytes and vLLM adds 37.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vllama.host.proctree import alive, start_time

_SHM = Path("/dev/shm")
_PATH_MAX = 60


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The private names of one launch (or, with no number, of a whole server): `path` and what begins with `mark`."""

    path: str
    mark: str

    def create(self) -> None:
        """The folder exists, for this user alone. Raises FileExistsError: then it is not ours."""
        os.mkdir(self.path, 0o700)

    def remove(self) -> None:
        """Nothing under these names is left; what is gone already is no error."""
        # The folder last: whoever finds it knows that there may be more.
        # glibc keeps a named semaphore NAME as sem.NAME. The dot ends the number: 1 is not 12.
        for pattern in (f"{self.mark}.*", f"sem.{self.mark}.*"):
            for file in _SHM.glob(pattern):
                file.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def launch(self, number: int) -> "RunFolder":
        """The names of this server's launch `number`."""
        return RunFolder(f"{self.path}/{number}", f"{self.mark}.{number}")


def _base() -> str:
    base = tempfile.gettempdir()
    return base if len(base) <= _PATH_MAX - 40 else "/tmp"


def _stem() -> str:
    # Containers may share /tmp but not their pids: the namespace tells whose pid it is.
    return f"vllama-{os.stat('/proc/self/ns/pid').st_ino:x}-"


def server_folder() -> RunFolder:
    """The names of this server (this process)."""
    mark = f"{_stem()}{os.getpid()}-{start_time(os.getpid())}"
    return RunFolder(f"{_base()}/{mark}", mark)


def remove_stale() -> list[str]:
    """What servers that are dead left behind, of this user and this pid namespace, is removed; their marks."""
    removed = []
    for folder in Path(_base()).glob(f"{_stem()}*"):
        pid, _, start = folder.name.removeprefix(_stem()).partition("-")
        if not (pid.isdigit() and start.isdigit()) or alive(int(pid), int(start)):
            continue
        if folder.lstat().st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink():
            RunFolder(str(folder), folder.name).remove()
            removed.append(folder.name)
    return removed
