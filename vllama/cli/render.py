"""All that the CLI prints. Beside markdown.py the only module that imports rich, and only for a terminal: a pipe gets plain
columns at once."""

import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any

ERROR_CHARACTERS_MAX = 300
CHOSEN = "engine_start is exec"  # no fork was wanted: nothing to tell of

PS_COLUMNS = (
    "MODEL",
    "STATE",
    "LEVEL",
    "DEVICE",
    "MEMORY",
    "IN FLIGHT",
    "WAITING",
    "IDLE FOR",
    "PORT",
    "LOG",
)

# A line of an engine's log about what went well, maybe behind the process that wrote it.
WELL = re.compile(r"(\(\w+ pid=\d+\) )?(INFO|DEBUG)\b")

SIZES = ("memory_limit", "kv_default_max")  # settings in bytes whose names do not say so


def say(text: str) -> None:
    """One line of the answer."""
    print(text, flush=True)


def raw(text: bytes) -> None:
    """A line of a log, byte for byte."""
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def folded(text: str, indent: str) -> None:
    """A sentence, over as many lines of a terminal as it takes."""
    if sys.stdout.isatty():
        width = max(shutil.get_terminal_size().columns, 40)
        text = textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)
        print(text, flush=True)
    else:
        say(indent + text)


def part(text: str) -> None:
    """A part of the answer, as it comes; on a terminal without what would command it."""
    print(text.replace("\x1b", "") if sys.stdout.isatty() else text, end="", flush=True)


def aside(text: str) -> None:
    """What is said beside the answer: grey on a terminal."""
    print(f"\x1b[2m{text}\x1b[0m" if sys.stdout.isatty() else text, flush=True)


def complain(text: str) -> None:
    """What went wrong and what to do next, on stderr."""
    print(f"vllama: {text}", file=sys.stderr, flush=True)


def is_dialogue() -> bool:
    """Somebody reads, and somebody can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def goes_on() -> bool:
    """Enter: the next, please; q, or the end of what can be said, is enough."""
    try:
        return input().strip().lower() not in ("q", "quit")
    except EOFError:
        return False


def has_status() -> bool:
    """Whether somebody sees it."""
    return sys.stderr.isatty()


def note(text: str) -> None:
    """What is said beside an answer that somebody else may read: on stderr."""
    print(f"\x1b[2m{text}\x1b[0m" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def status(text: str) -> None:
    """What one waits for now, on one line of stderr that the next call draws over; "" takes it away. Only on a terminal."""
    if not has_status():
        return
    width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
    short = text if len(text) < width else f"{text[: max(width - 4, 0)]}..."
    sys.stderr.write(f"\r\x1b[K\x1b[2m{short}\x1b[0m" if text else "\r\x1b[K")
    sys.stderr.flush()


def as_json(tree: object) -> None:
    """The server's answer as it is, for programs."""
    print(json.dumps(tree, indent=2, ensure_ascii=False), flush=True)


def size(count: object) -> str:
    """Bytes for people: 4.0 GiB, 512 MiB; "-" for nothing."""
    if not isinstance(count, int | float) or count <= 0:
        return "-"
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def span(seconds: float) -> str:
    """A time for people: 12s, 3m05s, 2h10m."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def ps(answer: Mapping[str, Any]) -> None:
    """The instances as a table; below it why one has failed, and how much of each device is whose."""
    instances = answer["instances"]
    if not instances:
        say(
            "No model has been asked for yet. `vllama info` shows the server, GET /v1/models what it can serve."
        )
        return
    table(PS_COLUMNS, [_ps_row(view, time.time()) for view in instances])
    for view in instances:
        if view.get("error"):
            say(f"\n{view['model']}: {_in_short(view)}")
        if priority := view.get("priority"):
            say(f"\n{view['model']}: {'is wanted at ' if view['waiting'] else ''}priority {priority}")
        if (why := view.get("mode_reason")) and why != CHOSEN:
            say(f"\n{view['model']}: started plainly, not forked: {why}")
        for note in view.get("notes", ()):
            say(f"\n{view['model']}: {note}")
    _restart_lines(instances)
    for device in answer.get("devices", ()):
        say(f"\n{_room(device)}")
    if (ram := answer.get("ram", {})).get("copies_bytes"):
        room = size(ram["sleep_ram_max_bytes"])
        say(
            f"\nhost RAM: {size(ram['copies_bytes'])} of {room} hold weights for level 1: {', '.join(ram['copies_of'])}"
        )


def _room(device: Mapping[str, Any]) -> str:
    """What of a device is in nobody's row."""
    name = device["id"] if device["kind"] == "cpu" else f"{device['id']} ({device['name']})"
    free = f"{size(device['free_bytes'])} of it free" if device["free_bytes"] else "none of it free"
    own = device["shared_bytes"]
    return f"{name}: {size(device['total_bytes'])} for engines, {free}" + (
        f", {size(own)} held by vllama's own processes" if own else ""
    )


def _in_short(view: Mapping[str, Any]) -> str:
    """An error in one line: what it begins with, the last line of its log that tells of more than of what went well, and where
    the rest is."""
    what, *lines = [line.strip() for line in str(view["error"]).splitlines() if line.strip()] or ["-"]
    if not lines and len(what) <= ERROR_CHARACTERS_MAX:
        return what
    telling = [line for line in lines if not WELL.match(line)]
    text = f"{what}: {telling[-1]}" if telling else what
    if len(text) > ERROR_CHARACTERS_MAX:
        text = f"{text[: ERROR_CHARACTERS_MAX - 3]}..."
    rest = f" (log: {view['log']}; `vllama logs {view['model']}` shows it)" if view["log"] else ""
    return text + rest


def waiting(view: Mapping[str, Any], does: str, *, force: bool = False) -> str:
    """What a command that takes its time waits for."""
    if view["in_flight"] and not force:
        count = f"{view['in_flight']} request{'s are' if view['in_flight'] > 1 else ' is'} in flight"
        return f"{view['model']}: {count}, it {does} when they have ended; `vllama sleep {view['model']} --force` cuts them off"
    return f"{view['model']}: {view['phase']}"


def _restart_lines(instances: Sequence[Mapping[str, Any]]) -> None:
    for view in instances:
        if keys := view.get("restart_needed"):
            say(
                f"\n{view['model']}: runs without the changes of {', '.join(keys)}: `vllama restart {view['model']}`"
            )


def _ps_row(view: Mapping[str, Any], now: float) -> tuple[str, ...]:
    asleep = view["phase"] in ("asleep", "falling_asleep")
    idle = view["last_used"] is not None and not view["in_flight"]
    return (
        view["model"],
        view["phase"],
        str(view["level"]) if asleep and view["level"] else "-",
        ",".join(view["devices"]) or "-",
        size(view["residue_bytes"] if view["phase"] == "asleep" else view["memory_bytes"]),
        str(view["in_flight"]),
        str(view["waiting"]),
        span(now - view["last_used"]) if idle else "-",
        str(view["port"] or "-"),
        view["log"] or "-",
    )


def info(answer: Mapping[str, Any]) -> None:
    """Names and values, nested ones indented; each setting with where it came from."""
    sources = answer.get("sources", {})
    config = {
        key: f"{_value(key, value)}  ({sources.get(key, '?')})" for key, value in answer["config"].items()
    }
    rest = {key: value for key, value in answer.items() if key not in ("config", "sources")}
    tree({"config": config} | rest, "")


def tree(values: Mapping[str, Any], indent: str) -> None:
    """Names and values, nested ones indented."""
    width = max((len(str(key)) for key in values), default=0)
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            say(f"{indent}{key}")
            tree(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for item in value:
                say(f"{indent}{key}")
                tree(item, indent + "  ")
        else:
            say(f"{indent}{key!s:{width}}  {_value(str(key), value)}".rstrip())


def _value(key: str, value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):  # as models.yaml has it
        return str(value).lower()
    if ("bytes" in key or key in SIZES) and isinstance(value, int):
        return f"{value} ({size(value)})"
    return "-" if value is None or value == "" else str(value)


def assigned(report: Mapping[str, Any]) -> None:
    """What `assign` has done, and what is still to do."""
    model = report["model"]
    if report["line"]:
        say(f"{model}: written to {report['file']}:{report['line']}")
    elif "entry" not in report and "restarted" not in report:
        say(f"{model}: no entry is left in {report['file']}")
    for key, value in report.get("entry", {}).items():
        say(f"{key:24}{json.dumps(value)}{'' if key in report['set'] else '  (default)'}")
    if report.get("problem"):
        complain(f"the server does not go by it: {report['problem']}")
    if report["restart_needed"]:
        keys = ", ".join(report["restart_needed"])
        say(f"{model}: runs without the changes of {keys}: `vllama restart {model}`")
    if "restarted" in report:
        result(report["restarted"])


def result(answer: Mapping[str, Any]) -> None:
    """What a command came to."""
    level = f" at level {answer['level']}" if answer["phase"] == "asleep" and answer["level"] else ""
    note = f" ({answer['note']})" if answer["note"] else ""
    say(f"{answer['model']}: {answer['phase']}{level}{note}")


FINDINGS = {"ok": "\x1b[32mok\x1b[0m    ", "note": "\x1b[33mnote\x1b[0m  ", "broken": "\x1b[31mbroken\x1b[0m"}


def finding(state: str, about: str, says: str, mend: str) -> None:
    """One of the doctor's lines, and how to mend what it says below it."""
    begin = f"{FINDINGS[state] if sys.stdout.isatty() else f'{state:6}'}  {about:12}  "
    say(f"{begin}{' '.join(says.split())}")
    if mend:
        say(f"{'':22}-> {mend}")


def progress(kind: str, event: Mapping[str, Any]) -> str | None:
    """An event as a line of progress; None for one that says nothing to somebody who waits, or that a server of another
    version sends."""
    try:
        return _told(kind, event)
    except (KeyError, TypeError, ValueError):
        return None


def _told(kind: str, event: Mapping[str, Any]) -> str | None:
    match kind:
        case "PhaseChanged":
            return f"{event['to']}"
        case "LeaseRequested":
            return f"asks for {size(event['bytes'])} of memory"
        case "LeaseHeld":
            return f"holds {size(event['bytes'])} on {', '.join(event['devices'])}"
        case "EnginePlaced":
            why = f": {event['mode_reason']}" if event.get("mode_reason") else ""
            after = f" after {waited_s:.1f} s for the preload" if (waited_s := event.get("waited_s")) else ""
            return f"engine is pid {event['pid']} on port {event['port']}, started by {event['mode']}{after}{why}"
        case "EngineRose":
            steps = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in event["steps_s"])
            return f"is up: {steps}" if steps else "is up"
        case "EngineMeasured":
            return f"takes {size(event['footprint_bytes'])}"
        case "EngineFaulted":
            return f"failed: {event['why']}"
        case "EngineGone" if not event.get("expected"):
            return f"engine has ended with {event['code']}" + (f" ({event['why']})" if event["why"] else "")
        case "RestartNoted":
            return f"is started once more ({event['reason']})"
        case "gap":
            return "(some events were lost)"
    return None


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns: on a terminal as it has room, in a pipe as they are."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*row)
        Console(markup=False, highlight=False).print(table)
        return
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
