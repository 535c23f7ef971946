"""The zygote: a process that has imported vLLM once and forks an engine whenever it is asked to.

It stays one thread with no event loop and never touches CUDA, so that its children may do anything. What it replaces
in vLLM are private places: each is looked for first, and when one is missing the zygote says `broken` and vllama
starts engines plainly.

    -> {"ready": seconds} or {"broken": reason} once, after the preload
    {"op": "fork", "argv", "env", "folder", "mark"} + [status, log] -> {"keeper": pid, "start"} or {"refused": reason}
"""

import gc
import importlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from mmap import mmap
from pathlib import Path
from typing import Any, NoReturn

from vllama.host import bootstrap, packets, proctree
from vllama.host.keeper import Charge, fork_keeper
from vllama.host.runfolder import RunFolder

_THREADS_WAIT_S = 10.0

# Without these a fork cannot serve.
_NEEDED = (
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.entrypoints.launchers.app",
    "vllm.entrypoints.launchers.cli_args",
    "vllm.v1.engine.core",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.coordinator",
    "vllm.v1.engine.utils",
    "vllm.v1.executor.multiproc_executor",
)
# What an engine would import later, one by one: each missing one only costs time.
_WANTED = (
    "uvloop",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "xgrammar",
    "setproctitle",
    "multiprocessing.popen_fork",
    "model_hosting_container_standards.sagemaker",
    "transformers.models.auto.modeling_auto",
    "vllm.distributed.elastic_ep.elastic_execute",
    "vllm.entrypoints.serve.instrumentator.metrics",
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.model_executor.model_loader.default_loader",
    "vllm.model_executor.models.adapters",
    "vllm.renderers.hf",
    "vllm.triton_utils.dispatcher",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.pool.flash_maxsim",
    # the model classes met most often: each is a few milliseconds now and some more at each start
    *(
        f"vllm.model_executor.models.{name}"
        for name in ("llama", "qwen2", "qwen3", "gemma3", "bert", "roberta")
    ),
)
_WANTED_CPU = (
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.worker.cpu_model_runner",
    "vllm.v1.attention.backends.cpu_attn",
    "vllama.host.cpu_worker",
)
_WANTED_CUDA = (
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.v1.attention.backends.flash_attn",
)
# Where vLLM takes its multiprocessing context from: CPU and some states of CUDA force spawn there, and so all imports.
_CONTEXT_USERS = (
    "vllm.utils.system_utils",
    "vllm.v1.engine.coordinator",
    "vllm.v1.engine.utils",
    "vllm.v1.executor.multiproc_executor",
)


class CannotFork(Exception):
    """This interpreter's vLLM cannot be forked; the message says why."""


def preload() -> list[str]:
    """vLLM is imported as far as an engine needs it; the modules that were not found. Raises CannotFork."""
    bootstrap.import_path()
    bootstrap.clean_environment()
    bootstrap.hide_broken_modules()
    try:
        for name in _NEEDED:
            importlib.import_module(name)
    except ImportError as error:
        raise CannotFork(f"vLLM cannot be imported as this version of vllama knows it: {error}") from error
    platform: Any = importlib.import_module("vllm.platforms").current_platform
    missing = []
    for name in (*_WANTED, *(_WANTED_CPU if platform.is_cpu() else _WANTED_CUDA), *_routers()):
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError, OSError) as error:
            missing.append(f"{name} ({error})")
    bootstrap.server_parser()
    return missing


def _routers() -> list[str]:
    """The modules of vLLM's HTTP routes, which a server imports one by one as it is built."""
    package = importlib.import_module("vllm.entrypoints")
    root = Path(package.__path__[0])
    names = (".".join(file.relative_to(root).with_suffix("").parts) for file in root.rglob("api_router.py"))
    return sorted(f"vllm.entrypoints.{name}" for name in names)


def always_fork() -> None:
    """vLLM's processes fork their children. Raises CannotFork when a place to say so is missing."""
    if importlib.import_module("vllm.platforms.interface").in_wsl():
        raise CannotFork("under WSL vLLM cannot fork")
    context = multiprocessing.get_context("fork")
    for name in _CONTEXT_USERS:
        module = sys.modules[name]
        if not callable(getattr(module, "get_mp_context", None)):
            raise CannotFork(f"{name} of this vLLM has no get_mp_context")
        module.get_mp_context = lambda: context  # type: ignore[attr-defined]


def settle() -> None:
    """Nothing but this thread runs, so that a fork copies no lock that somebody holds. Raises CannotFork."""
    gc.collect()
    gc.freeze()  # what is loaded now is never looked at again: the collector would copy its pages
    deadline = time.monotonic() + _THREADS_WAIT_S
    while (tasks := len(os.listdir("/proc/self/task"))) > 1:
        if time.monotonic() > deadline:
            names = ", ".join(thread.name for thread in threading.enumerate())
            raise CannotFork(f"the preload left {tasks} threads running ({names})")
        time.sleep(0.02)


def _refusal() -> str:
    """Why nothing may be forked now, "" when it may."""
    torch = sys.modules["torch"]
    if torch.cuda.is_initialized():
        return "CUDA is initialized in the zygote"
    tasks = len(os.listdir("/proc/self/task"))
    return f"the zygote has {tasks} threads" if tasks > 1 else ""


def _fork(packet: packets.Packet, fds: list[int], sock: socket.socket, life: int) -> int:
    folder = RunFolder(packet["folder"], packet["mark"])

    def engine(announced: mmap) -> None:
        os.environ.update(packet["env"])
        bootstrap.own_names(folder.path, folder.mark)
        bootstrap.choose_signals(announced)
        sys.argv[:] = ["vllm-engine", *packet["argv"]]
        bootstrap.finish(lambda: bootstrap.serve(packet["argv"], announced))

    # dup: the socket object takes the descriptor over, the list keeps its own to close.
    charge = Charge(socket.socket(fileno=os.dup(fds[0])), life, fds[1], folder)
    try:
        return fork_keeper(charge, (sock.fileno(), fds[0]), engine)
    finally:
        charge.status.close()


def attend(sock: socket.socket, life: int) -> NoReturn:
    """Engines are forked as they are asked for, until vllama closes its end."""
    while True:
        packet, fds = packets.receive(sock)
        if packet is None:
            os._exit(0)
        if reason := _refusal():
            answer: packets.Packet = {"refused": reason}
        else:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            try:
                pid = _fork(packet, fds, sock, life)
                answer = {"keeper": pid, "start": proctree.start_time(pid)}
            except OSError as error:
                answer = {"refused": f"fork failed: {error}"}
        for fd in fds:
            os.close(fd)
        try:
            packets.send(sock, answer)
        except OSError:  # vllama has gone meanwhile
            os._exit(0)


def main() -> NoReturn:
    """`zygote SOCKET_FD LIFE_FD`, started by the guard."""
    began = time.monotonic()
    proctree.set_name(f"{proctree.OURS}zygote")
    signal.pthread_sigmask(signal.SIG_BLOCK, proctree.GROUP_SIGNALS)
    sock = socket.socket(fileno=int(sys.argv[1]))
    life = int(sys.argv[2])
    sock.set_inheritable(False)
    os.set_inheritable(life, False)
    try:
        missing = preload()
        always_fork()
        settle()
    except CannotFork as error:
        packets.send(sock, {"broken": str(error)})
        os._exit(0)
    # Keepers are reaped by the kernel: this process only waits for the next request.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    packets.send(sock, {"ready": round(time.monotonic() - began, 2), "missing": missing})
    attend(sock, life)


if __name__ == "__main__":
    main()
