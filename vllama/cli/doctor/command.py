"""`vllama doctor`: each line ok, or how to mend it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

import typer

from vllama.cli import address, render
from vllama.cli.control import FAILED, Json, Server, reported
from vllama.cli.doctor.finding import Finding


def doctor(server: Server = None, json: Json = False) -> None:
    """Look at this machine: what is installed, GPUs, memory, settings, models, ports, the server. Exit 1: something is broken."""
    with reported():
        found = list(_found(address.parse(server, "--server").url if server else ""))
    counts = Counter(finding.state for finding in found)
    if json:
        render.as_json({"broken": counts["broken"], "findings": [asdict(finding) for finding in found]})
    else:
        for finding in found:
            render.finding(finding.state, finding.about, finding.says, finding.mend)
        notes = f", {counts['note']} to look at" if counts["note"] else ""
        what = f"{counts['broken']} broken" if counts["broken"] else "nothing is broken"
        render.say(f"\n{what}{notes}")
    if counts["broken"]:
        raise typer.Exit(FAILED)


def _found(url: str) -> Iterator[Finding]:
    """`url` "" is where the settings say."""
    from vllama.cli.doctor.engine import engine
    from vllama.cli.doctor.machine import gpus, machine
    from vllama.cli.doctor.network import ports, server
    from vllama.cli.doctor.settings import cache, folders, settings

    config, about_settings = settings()
    count, about_gpus = gpus()
    yield from engine(config.engine_python if config else "", config.engine_entry if config else "", count)
    yield from about_gpus
    yield from machine()
    yield from about_settings
    if config is not None:
        yield from folders(config)
        yield from cache(config)
    port, about_server = server(url)
    yield from about_server
    if config is not None:
        yield from ports(config, port)
