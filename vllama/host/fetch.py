"""One pull, in a process of its own: a revision of a repository of the hub goes into the cache.

    python -m vllama.host.fetch < ORDER

The order is one line of JSON on stdin: `model`, `revision`, `cache`. Each line of stdout is a step as JSON, the last one a
success or an error. The process ends at once when stdin does, so it never outlives who ordered it, and what it had of a file
is gone on from the next time. The layout is huggingface_hub's; that a revision is the model's is written last.
"""

import fcntl
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from vllama.errors import ModelUnknown, PullFailed, VllamaError
from vllama.host.host import PullStep
from vllama.host.hub_client import HubClient, RemoteFile
from vllama.host.store import model_folder
from vllama.host.wanted import WEIGHTS, wanted

FILES_AT_ONCE = 4
STEP_S = 0.1
SPARE_BYTES = 2**28  # a disk is not filled to the last byte


class Reporter:
    """Steps as lines on stdout, of each file no more than a few a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}

    def say(self, step: PullStep) -> None:
        self._line({"step": {key: value for key, value in asdict(step).items() if value}})

    def moved(self, file: RemoteFile, done: int) -> None:
        now = time.monotonic()
        if done < file.size and now - self._said.get(file.name, 0.0) < STEP_S:
            return
        self._said[file.name] = now
        self.say(PullStep(f"pulling {file.name}", file.name, file.digest, file.size, done))

    def fail(self, error: VllamaError) -> None:
        kind = "unknown" if isinstance(error, ModelUnknown) else "failed"
        self._line({"error": error.message, "kind": kind})

    def _line(self, value: object) -> None:
        with self._lock:
            sys.stdout.write(json.dumps(value) + "\n")
            sys.stdout.flush()


class Pull:
    """A model's revision on its way into its folder."""

    def __init__(self, hub: HubClient, reporter: Reporter, model: str, revision: str, cache: Path) -> None:
        self._hub, self._reporter = hub, reporter
        self._model, self._revision = model, revision
        self._cache, self._folder = cache, model_folder(cache, model)

    def run(self) -> None:
        """Returns when all of it is there. Raises VllamaError, OSError."""
        self._reporter.say(PullStep("pulling manifest"))
        found = self._hub.revision(self._model, self._revision)
        names = wanted(self._model, found.names)
        if not any(name.endswith(tuple(WEIGHTS)) for name in names) or "config.json" not in names:
            raise PullFailed(
                f"{self._model} has no config.json with weights beside it: vLLM cannot serve it",
                model=self._model,
            )
        with self._alone():
            known = dict(found.known)
            files = [known.get(name) or self._hub.file(self._model, found.commit, name) for name in names]
            self._check_room(files)
            self._all(files, found.commit)
            self._reporter.say(PullStep("writing manifest"))
            self._name(found.commit)
        self._reporter.say(PullStep("success", revision=found.commit, total=sum(file.size for file in files)))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One pull of a model at a time, whoever ordered it."""
        locks = self._cache / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / f"{self._folder.name}.pull.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._reporter.say(PullStep("waiting for another pull of the same model"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _check_room(self, files: list[RemoteFile]) -> None:
        blobs = self._folder / "blobs"
        missing = {file.etag: file.size for file in files if not (blobs / file.etag).exists()}
        there = sum(_size(blobs / f"{etag}.incomplete") for etag in missing)
        needed, free = sum(missing.values()) - there, shutil.disk_usage(self._cache).free
        if needed and needed + SPARE_BYTES > free:
            raise PullFailed(
                f"{self._model} needs {needed} more bytes in {self._cache}, which has {free} free (and {SPARE_BYTES} are "
                "left alone): make room there, for example with `vllama rm`",
                model=self._model,
            )

    def _all(self, files: list[RemoteFile], commit: str) -> None:
        """Every file is a blob with a link to it: the small ones before any of the weights, these all at once."""
        small = [file for file in files if not file.name.endswith(tuple(WEIGHTS))]
        heavy = files[len(small) :]
        pool = ThreadPoolExecutor(
            FILES_AT_ONCE
        )  # the first failure ends the process: no other file is waited for
        for part in (small, heavy):
            alike = {file.etag: file for file in part}  # two names may have the same bytes
            for job in [pool.submit(self._blob, file, commit) for file in alike.values()]:
                job.result()
            for file in part:
                self._link(file, commit)

    def _blob(self, file: RemoteFile, commit: str) -> None:
        blob = self._folder / "blobs" / file.etag
        blob.parent.mkdir(parents=True, exist_ok=True)
        if not blob.exists():
            part = blob.with_name(f"{file.etag}.incomplete")
            self._hub.fetch(self._model, commit, file, part, lambda done: self._reporter.moved(file, done))
            part.replace(blob)
        self._reporter.moved(file, file.size)

    def _link(self, file: RemoteFile, commit: str) -> None:
        link = self._folder / "snapshots" / commit / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(self._folder / "blobs" / file.etag, link.parent))

    def _name(self, commit: str) -> None:
        """From now on the revision is this commit, in one step."""
        if self._revision == commit:
            return
        ref = self._folder / "refs" / self._revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._folder / "refs")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(commit)
            os.fchmod(file.fileno(), 0o644)
        os.replace(name, ref)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(3)


def main() -> int:
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    reporter = Reporter()
    from huggingface_hub import constants, get_token

    model = order["model"]
    try:
        if constants.HF_HUB_OFFLINE:
            raise PullFailed(
                f"HF_HUB_OFFLINE is set for this server: nothing can be pulled, {model} neither; start it without",
                model=model,
            )
        hub = HubClient(constants.ENDPOINT, get_token())
        Pull(hub, reporter, model, order["revision"], Path(order["cache"])).run()
    except VllamaError as error:
        reporter.fail(error)
        code = 1
    except OSError as error:
        reporter.fail(PullFailed(f"{model} cannot be written to {order['cache']}: {error}", model=model))
        code = 1
    else:
        code = 0
    # The other files' threads may be in the middle of a read: nothing of theirs is worth waiting for.
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
