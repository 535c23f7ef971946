"""The first code of an engine's interpreter, forked or executed; then vLLM's own API server, in this process.

`python bootstrap.py ARGS` is an engine started plainly; its spawned children import this file again as their main
module and so are prepared too. After a fork the zygote calls `serve`. Standard library only until `serve`.
"""

import contextlib
import functools
import importlib
import importlib.util
import mmap
import multiprocessing.process
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing import shared_memory
from types import FrameType
from typing import Any, NoReturn

# One launch's own names, for this process and those it spawns: the folder, and what its shared memory begins with.
RUN_DIR, SHM_MARK = "VLLAMA_RUN_DIR", "VLLAMA_SHM_MARK"
_ABSENT = "VLLAMA_ABSENT_MODULES"
_FRAGILE = ("torchvision", "torchaudio", "torchcodec")

# The files of which a multimodal model has at least one.
_PROCESSOR = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")

_DEAF_TO = frozenset({signal.SIGINT, signal.SIGHUP})

_Handler = Callable[[int, FrameType | None], Any] | int | None


def import_path() -> None:
    """vllama's package can be imported and shadows nothing: its parent is the last entry of the path."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    root = os.path.dirname(os.path.dirname(here))
    if root not in sys.path:
        sys.path.append(root)


def clean_environment() -> None:
    """No setting that makes sleep useless is left (expandable segments are not given back)."""
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        if value := os.environ.get(name):
            kept = [
                part for part in value.split(",") if part.partition(":")[0].strip() != "expandable_segments"
            ]
            os.environ[name] = ",".join(kept)
            if not kept:
                del os.environ[name]


def hide_broken_modules() -> None:
    """What is installed but cannot be imported (torchvision built for another torch) is absent to everybody.

    transformers and vLLM do without what is absent, and die of what is broken. Spawned children are told, not asked.
    """
    if (told := os.environ.get(_ABSENT)) is not None:
        absent = told.split(",") if told else []
    else:
        absent = [name for name in _FRAGILE if not _imports(name)]
        os.environ[_ABSENT] = ",".join(absent)
    for name in absent:
        for loaded in [module for module in sys.modules if module.partition(".")[0] == name]:
            del sys.modules[loaded]
        # The import system's own way to say so: import raises ModuleNotFoundError, find_spec gives None.
        sys.modules[name] = None  # type: ignore[assignment]


def _imports(name: str) -> bool:
    if importlib.util.find_spec(name) is None:
        return False
    try:
        importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        sys.stderr.write(f"vllama: {name} cannot be imported and is left out: {error}\n")
        return False
    return True


def own_names(folder: str, mark: str) -> None:
    """Temporary files, sockets, shared memory and semaphores get names that tell whose they are."""
    os.environ.update({RUN_DIR: folder, SHM_MARK: mark, "TMPDIR": folder, "VLLM_RPC_BASE_PATH": folder})
    tempfile.tempdir = folder
    shared_memory._make_filename = lambda: f"/{mark}.{os.urandom(8).hex()}"  # type: ignore[attr-defined]  # noqa: SLF001
    config = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]  # noqa: SLF001
    config["semprefix"] = f"/{mark}."


def choose_signals(announced: mmap.mmap | None) -> None:
    """In this process and those it forks SIGINT and SIGHUP do nothing, whoever installs handlers for them.

    With `announced` SIGTERM does nothing either until that byte is set, and then what it always does: the whole group
    may be signalled while streams run. vLLM's own SIGTERM to its children is an announcement too.
    """
    install = signal.signal

    def guarded(handler: _Handler) -> _Handler:
        def on_term(signum: int, frame: FrameType | None) -> None:
            if not _heeded(signum, announced) or handler == signal.SIG_IGN:
                return
            if callable(handler):
                handler(signum, frame)
            else:
                install(signum, signal.SIG_DFL)
                signal.raise_signal(signum)

        on_term.wrapped = handler  # type: ignore[attr-defined]
        return on_term

    def install_guarded(signum: int, handler: _Handler) -> _Handler:
        if signum in _DEAF_TO:
            return install(signum, signal.SIG_IGN)
        if signum == signal.SIGTERM and announced is not None:
            handler = guarded(handler)
        previous = install(signum, handler)
        return getattr(previous, "wrapped", previous)

    # Blocking them would not do: multiprocessing's resource tracker unblocks SIGINT.
    signal.signal = install_guarded  # type: ignore[assignment]
    for signum in _DEAF_TO:
        signal.signal(signum, signal.SIG_IGN)
    if announced is None:
        return
    byte, terminate = announced, multiprocessing.process.BaseProcess.terminate

    def announce_and_terminate(process: multiprocessing.process.BaseProcess) -> None:
        byte[0] = 1
        terminate(process)

    multiprocessing.process.BaseProcess.terminate = announce_and_terminate  # type: ignore[method-assign, assignment]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _heeded(signum: int, announced: mmap.mmap | None) -> bool:
    """A signal that has come means something here."""
    return signum not in _DEAF_TO and (signum != signal.SIGTERM or announced is None or announced[0] != 0)


def inspect_models_here() -> None:
    """On CPU vLLM looks at a model's class in this process, not in a new one that imports everything first (15 s).

    It does so to keep CUDA out of the API server, which is none of CPU's concern.
    """
    from vllm.model_executor.models import registry
    from vllm.platforms import current_platform

    if current_platform.is_cpu() and hasattr(registry, "_run_in_subprocess"):
        registry._run_in_subprocess = lambda look: look()  # noqa: SLF001


def expect_no_processor() -> None:
    """Where a model's folder has no processor, vLLM does not look there for a chat template.

    It would load the tokenizer a second time to find that there is none (a second of each start of a text model).
    """
    try:
        from vllm.renderers import hf
    except ImportError:  # another version, which looks elsewhere or not at all
        return
    look = getattr(hf, "_try_get_processor_chat_template", None)
    if look is None:
        return

    def look_if_any(tokenizer: Any, **options: Any) -> str | None:
        folder = tokenizer.name_or_path
        if os.path.isdir(folder) and not any(
            os.path.exists(os.path.join(folder, name)) for name in _PROCESSOR
        ):
            return None
        found: str | None = look(tokenizer, **options)
        return found

    hf._try_get_processor_chat_template = look_if_any  # noqa: SLF001


@functools.cache
def listen_alone() -> None:
    """The server's port is held by the API server alone: what it forks lets go of it.

    Else a killed API server's children would keep the port open, and requests that nobody will ever read would be accepted.
    """
    os.register_at_fork(after_in_child=_close_listeners)


def _close_listeners() -> None:
    """In a fresh child: what is bound to a port and connected to nobody. (vLLM binds, forks, and only then listens.)"""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as found:
            inet = found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM
            if inet and found.getsockname()[1] and not _is_connected(found):
                os.close(int(name))


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def server_parser() -> Any:
    """vLLM's own parser of its server's arguments (0.2 s to make: the zygote has made it before it forks)."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser(description="vLLM's API server, started by vllama"))


def serve(argv: Sequence[str], announced: mmap.mmap | None = None) -> None:
    """vLLM's OpenAI server has run with these arguments, and ended. Raises what vLLM raises."""
    import uvloop
    from vllm.entrypoints.launchers.api_server.entry import run_server
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args
    from vllm.logger import configure_logging_from_args

    class Loop(uvloop.Loop):  # type: ignore[misc]
        """uvloop installs C-level handlers of its own: the callback is where SIGTERM can be judged."""

        def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:
            def judged() -> None:
                if _heeded(sig, announced):
                    callback(*args)

            super().add_signal_handler(sig, judged)

    listen_alone()
    inspect_models_here()
    expect_no_processor()
    args = server_parser().parse_args(list(argv))
    configure_logging_from_args(args)
    validate_parsed_serve_args(args)
    uvloop.run(run_server(args), loop_factory=Loop)


def finish(engine: Callable[[], None]) -> NoReturn:
    """`engine()` runs and the process ends by `os._exit`, whatever happens, everything printed."""
    code = 1
    try:
        engine()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
    except KeyboardInterrupt:  # how vLLM ends when SIGTERM comes before it serves
        sys.stderr.write("vllama: terminated while starting\n")
        code = 128 + signal.SIGTERM
    finally:
        if sys.exception() is not None:
            sys.excepthook(*sys.exc_info())
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _prepare_executed() -> None:
    import_path()
    clean_environment()
    if RUN_DIR in os.environ:
        own_names(os.environ[RUN_DIR], os.environ[SHM_MARK])
    choose_signals(None)
    hide_broken_modules()


if __name__ in ("__main__", "__mp_main__"):
    _prepare_executed()

if __name__ == "__main__":
    # vLLM's own choice for its command: a forked child of a process that has threads is no good start.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    finish(lambda: serve(sys.argv[1:]))
