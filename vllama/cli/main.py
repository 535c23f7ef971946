"""The `vllama` command. Importing it costs little: no torch, no vllm, no fastapi, no rich."""

import typer

from vllama.cli import assign, control, serve, watching

app = typer.Typer(
    name="vllama",
    help="One OpenAI-compatible endpoint in front of every vLLM model on the machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve.serve)
app.command()(control.info)
app.command()(control.ps)
app.command()(control.start)
app.command()(control.stop)
app.command()(control.sleep)
app.command()(control.restart)
app.command()(assign.assign)
app.command()(watching.logs)
app.command()(watching.events)
app.command("wake-up")(control.start)
app.command("wakeup", hidden=True)(control.start)
app.command("wake_up", hidden=True)(control.start)


def main() -> None:
    """Run the command line and exit."""
    app()


if __name__ == "__main__":
    main()
