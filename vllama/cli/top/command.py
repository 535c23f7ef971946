"""`vllama top`."""

from vllama.cli import render
from vllama.cli.control import USAGE, Server, open_client


def top(server: Server = None) -> None:
    """Watch devices, models, queues and events live; put models to sleep, wake, stop them, follow their logs."""
    import sys

    import typer

    with open_client(server) as client:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            render.complain("top needs a terminal; `vllama ps --json` and `vllama events` are for programs")
            raise typer.Exit(USAGE)
        client.get("/control/ps")  # a server that is not there is said before the screen is taken
        from vllama.cli.top.app import Top

        Top(client).run()
