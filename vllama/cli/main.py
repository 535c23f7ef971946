"""The `vllama` command. Importing it costs little: no torch, no vllm, no fastapi, no rich."""

import sys

import typer

from vllama.cli import asking, assign, control, library, render, replay, serve, usage, watching
from vllama.cli.bench import command as measure
from vllama.cli.chat import command as chat
from vllama.cli.doctor import command as health
from vllama.cli.top import command as watch

app = typer.Typer(
    name="vllama",
    help="One OpenAI-compatible endpoint in front of every vLLM model on the machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve.serve)
app.command()(chat.run)
app.command()(library.pull)
app.command("list")(library.list_models)
app.command("ls", hidden=True)(library.list_models)
app.command()(library.show)
app.command()(library.rm)
app.command()(library.cp)
app.command()(control.info)
app.command()(control.ps)
app.command()(watch.top)
app.command()(control.start)
app.command()(control.stop)
app.command()(control.sleep)
app.command()(control.restart)
app.command()(assign.assign)
app.command()(watching.logs)
app.command()(watching.events)
app.command()(replay.replay)
app.command()(asking.explain)
app.command()(asking.plan)
app.command()(health.doctor)
app.command()(measure.bench)
app.command("wake-up")(control.start)
app.command("wakeup", hidden=True)(control.start)
app.command("wake_up", hidden=True)(control.start)


# Typer hands out its errors under no public name but this one's.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line and exit; what is wrong with it is one line on stderr, as every error is."""
    try:
        code = app(prog_name="vllama", standalone_mode=False)
    except UsageError as error:
        context = getattr(error, "ctx", None)
        text = error.format_message()  # type: ignore[attr-defined]  # UsageError has it, its public name does not
        if not text or len(sys.argv) == 1:  # nothing was asked for: the help is the answer
            sys.stderr.write(context.get_help() + "\n" if context is not None else "")
        else:
            render.complain(usage.words(error, _called()))
        sys.exit(control.USAGE)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(control.INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _called() -> str:
    """The command that was typed, for the errors of the parser that do not name it."""
    known = {info.name or info.callback.__name__ for info in app.registered_commands if info.callback}
    return f"vllama {sys.argv[1]}" if sys.argv[1] in known else "vllama"


if __name__ == "__main__":
    main()
