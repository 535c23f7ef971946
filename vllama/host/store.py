"""The model cache as something that changes: a model pulled into it by a process of its own, a model removed from it."""

import asyncio
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from vllama.errors import BadRequest, ModelUnknown, PullFailed, cited
from vllama.host.host import PullStep

LINE_BYTES_MAX = 2**16
_MODEL = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*", re.ASCII)


def model_folder(cache: Path, model: str) -> Path:
    """Where huggingface_hub keeps a model."""
    return cache / ("models--" + model.replace("/", "--"))


@asynccontextmanager
async def pulling(cache: Path, model: str, revision: str) -> AsyncIterator[AsyncIterator[PullStep]]:
    """A pull under way. When it is left, however, its process is gone. Raises BadRequest, PullFailed, ModelUnknown."""
    check_names(model, revision)
    order = json.dumps({"model": model, "revision": revision, "cache": str(cache)})
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vllama.host.fetch"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )
    except OSError as error:
        raise PullFailed(f"{model}: the pull cannot be started: {error}", model=model) from error
    assert process.stdin is not None
    try:
        process.stdin.write(order.encode() + b"\n")  # it stays open: its end is the process's
        yield _steps(process, model)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.stdin.close()
        await process.wait()


async def _steps(process: asyncio.subprocess.Process, model: str) -> AsyncIterator[PullStep]:
    assert process.stdout is not None
    done = False
    async for line in process.stdout:
        said = json.loads(line)
        if "error" in said:
            kind = ModelUnknown if said["kind"] == "unknown" else PullFailed
            raise kind(said["error"], model=model)
        step = PullStep(**said["step"])
        done = step.status == "success"
        yield step
    if not done:
        code = await process.wait()
        raise PullFailed(f"{model}: the pull ended by itself (code {code}); pull again to go on", model=model)


def check_names(model: str, revision: str = "main") -> None:
    """Both become parts of paths. Raises BadRequest."""
    if not _MODEL.fullmatch(model) or "--" in model or ".." in model or len(model) > 96:
        raise BadRequest(
            f"{cited(model)!r} is no name of a model of the hub: write ORG/NAME, for example Qwen/Qwen3-0.6B"
        )
    if not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision or len(revision) > 200:
        raise BadRequest(f"{cited(revision)!r} is no revision: write a branch, a tag or a commit")


def remove(cache: Path, model: str) -> int:
    """The model is gone from the cache in one step, then from the disk; the bytes that came free. Raises ModelUnknown, OSError"""
    check_names(model)
    folder = model_folder(cache, model)
    grave = cache / f".removed-{uuid.uuid4().hex}"
    _sweep(cache)
    try:
        folder.rename(grave)
    except FileNotFoundError as error:
        raise ModelUnknown(f"{model} has no files in {cache}", model=model) from error
    freed = _bytes_of(grave)
    shutil.rmtree(grave)
    shutil.rmtree(cache / ".locks" / folder.name, ignore_errors=True)
    return freed


def _sweep(cache: Path) -> None:
    """What an interrupted removal has left."""
    for grave in cache.glob(".removed-*"):
        shutil.rmtree(grave, ignore_errors=True)


def _bytes_of(folder: Path) -> int:
    """What its files take; links count for nothing."""
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            path = Path(top, name)
            if not path.is_symlink():
                total += path.stat().st_size
    return total
