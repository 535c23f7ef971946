"""`vllama serve`: the only command that imports the server, and only when it is called."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from vllama.cli import render

PR_SET_PDEATHSIG = 1


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on. [default: 33258]")
    ] = None,
    ollama_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Listen on this port as well, as 11434 for Ollama's clients."),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="What engines may take of each device, for example 4GiB."),
    ] = None,
    engine_start: Annotated[
        str | None, typer.Option(metavar="auto|fork|exec", help="How engines are started. [default: auto]")
    ] = None,
    config_dir: Annotated[
        Path | None, typer.Option(help="Where models.yaml and the logs are. [default: ~/.vllama]")
    ] = None,
    transformers_cache: Annotated[
        Path | None, typer.Option(help="The Hugging Face cache with the models. [default: its own rules]")
    ] = None,
    unload_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long a model may be idle. [default: 1800]")
    ] = None,
    unload_mode: Annotated[
        int | None, typer.Option(min=1, max=3, help="The sleep level of an idle model. [default: 2]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes that serve requests. [default: 1]")
    ] = None,
    shutdown_timeout_s: Annotated[
        float | None,
        typer.Option(
            "--shutdown-timeout", metavar="SECONDS", help="How long a shutdown waits for what runs."
        ),
    ] = None,
    ends_with: Annotated[int | None, typer.Option(hidden=True, metavar="PID")] = None,
) -> None:
    """Serve every model of the cache at one OpenAI-compatible endpoint. Each setting is also VLLAMA_NAME."""
    flags = {name: value for name, value in locals().items() if name != "ends_with"}
    import asyncio

    import uvloop

    if ends_with is not None:
        _end_with(ends_with)

    from vllama.config import load_config
    from vllama.errors import ConfigError

    try:
        config = load_config(flags)
    except ConfigError as error:
        render.complain(error.message)
        raise typer.Exit(2) from error
    _begin_log(config.strangers)

    from vllama.api.garbage import spare_what_is_loaded
    from vllama.api.server import serve as run

    spare_what_is_loaded()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(run(config))
    raise typer.Exit(code)


def _begin_log(warnings: Iterable[str]) -> None:
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("uvicorn", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for warning in warnings:
        logging.getLogger(__name__).warning("%s", warning)


def _end_with(parent: int) -> None:
    """From now on the end of the process that started this one is a SIGTERM to it, however that one ends."""
    import ctypes
    import os
    import signal

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it has ended before
        raise typer.Exit(0)
