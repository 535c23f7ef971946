"""`vllama bench`: the measurements in their order, and their table."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from vllama.cli import render
from vllama.cli.client import Client
from vllama.cli.control import INTERRUPTED, Json, Model, Server, open_client

LEVELS = (1, 2)


def bench(
    model: Model,
    streams: Annotated[int, typer.Option("--streams", "-c", min=1, max=256, help="How many at once.")] = 4,
    tokens: Annotated[int, typer.Option("--tokens", "-t", min=2, help="Of each answer.")] = 64,
    rounds: Annotated[int, typer.Option("--rounds", "-r", min=1, help="How often, for the medians.")] = 3,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Texts in one request for embeddings.")] = 16,
    switch: Annotated[
        bool, typer.Option("--switch/--no-switch", help="Put it to sleep and wake it, too.")
    ] = True,
    server: Server = None,
    json: Json = False,
) -> None:
    """Measure a model through the endpoint: tokens (or embeddings) per second, time to first token, sleep and wake."""
    with open_client(server) as client:
        try:
            report = _measured(client, model, streams, tokens, rounds, batch, switch=switch)
        except KeyboardInterrupt as error:
            render.status("")
            raise typer.Exit(INTERRUPTED) from error
        finally:
            render.status("")
        (render.as_json if json else _table)(report)


def _measured(
    client: Client, name: str, streams: int, tokens: int, rounds: int, batch: int, *, switch: bool
) -> dict[str, Any]:
    from vllama.cli.bench.measure import Bench

    card = client.get(f"/v1/models/{quote(name, safe='/')}")
    kind = str(card.get("kind"))
    about = Bench(client, name, kind)
    report: dict[str, Any] = {"model": str(card["id"]), "kind": kind}
    render.status(f"{name}: comes up")
    report["first"] = about.come_up()
    runs = []
    for count in sorted({1, streams}):
        render.status(f"{name}: {count} at once")
        if kind in ("embedding", "rerank"):
            runs.append(about.pooled(count, rounds, batch))
        else:
            runs.append(about.alone(rounds, tokens) if count == 1 else about.together(count, tokens))
    report["runs"] = runs
    report["switches"] = []
    for level in LEVELS if switch else ():
        render.status(f"{name}: sleeps at level {level} and wakes")
        report["switches"].append(about.switch(level))
    return report


def _table(report: dict[str, Any]) -> None:
    came = {"cold": "was started", "wake": "was woken", "warm": "was awake"}
    first = report["first"]
    waited = f", {first['waited_s']:.2f} s" if first["state"] != "warm" else ""
    render.say(f"{report['model']} ({report['kind']}), {came.get(first['state'], first['state'])}{waited}\n")
    if report["kind"] in ("embedding", "rerank"):
        what = "EMBEDDINGS/S" if report["kind"] == "embedding" else "DOCUMENTS/S"
        rows = [
            (str(run["streams"]), str(run["batch"]), f"{run['texts_per_s']:.1f}", f"{run['request_s']:.3f} s")
            for run in report["runs"]
        ]
        render.table(("AT ONCE", "TEXTS EACH", what, "REQUEST TAKES"), rows)
    else:
        rows = [
            (
                str(run["streams"]),
                _number(run["tokens_per_s"], "{:.1f}"),
                _number(run["first_token_s"], "{:.3f} s"),
                str(run["tokens"]),
            )
            for run in report["runs"]
        ]
        render.table(("AT ONCE", "TOKENS/S", "FIRST TOKEN", "TOKENS"), rows)
    if report["switches"]:
        render.say("")
        rows = [
            (str(each["asked"]), f"{each['sleep_s']:.2f} s", f"{each['wake_s']:.2f} s", _came(each))
            for each in report["switches"]
        ]
        render.table(("LEVEL", "SLEEP", "WAKE", ""), rows)


def _number(value: float | None, form: str) -> str:
    return form.format(value) if value is not None else "-"


def _came(switch: dict[str, Any]) -> str:
    """Where it is not what was asked for."""
    if switch["level"] == switch["asked"]:
        return ""
    return switch["note"] or (
        "it was stopped, and started again" if switch["level"] == 3 else f"level {switch['level']}"
    )
