"""How models, a model, and a pull under way are shown."""

import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vllama.cli import render
from vllama.cli.completion import model_names
from vllama.cli.render import size

if TYPE_CHECKING:
    from vllama.cli.bars import Bars

COLUMNS = ("NAME", "TYPE", "SIZE", "MODIFIED", "STATE")
NOTHING: AbstractContextManager[None] = nullcontext()
AGES = (
    ("year", 31_536_000),
    ("month", 2_592_000),
    ("week", 604_800),
    ("day", 86_400),
    ("hour", 3600),
    ("minute", 60),
)
FILES_SHOWN_MAX = 12


def names(incomplete: str) -> list[str]:
    """For the shell."""
    return model_names(incomplete)


def models(answer: Mapping[str, Any]) -> None:
    """The models as a table."""
    found = answer["models"]
    if not found:
        render.say("There is no model yet: `vllama pull Qwen/Qwen3-0.6B` brings one.")
        return
    render.table(COLUMNS, [_row(each) for each in found])
    for each in found:
        if each["problem"]:
            render.say(f"\n{each['model']}: {each['problem']}")


def _row(model: Mapping[str, Any]) -> tuple[str, ...]:
    also = f" ({', '.join(model['aliases'])})" if model["aliases"] else ""
    level = f" {model['level']}" if model["phase"] == "asleep" else ""
    return (
        model["model"] + also,
        model["kind"],
        size(model["size_bytes"]),
        ago(time.time() - model["modified_at"]),
        f"{model['phase']}{level}" or "no server",
    )


def ago(seconds: float) -> str:
    """How long since, for people: 3 days ago."""
    for unit, length in AGES:
        if seconds >= length:
            count = int(seconds / length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def removed(answer: Mapping[str, Any]) -> None:
    """What has gone."""
    if answer["alias"]:
        render.say(f"{answer['alias']}: no name of {answer['model']} any more; its files stay")
    else:
        render.say(f"{answer['model']}: removed, {size(answer['freed_bytes'])} are free again")


def shown(answer: Mapping[str, Any]) -> None:
    """A model, from what it is to what it will take."""
    level = f" at level {answer['level']}" if answer["phase"] == "asleep" else ""
    dtypes = ", ".join(f"{dtype} {size(count)}" for dtype, count in answer["dtypes"].items())
    head = {
        "type": answer["kind"],
        "state": answer["phase"] + level,
        "architecture": answer["architecture"] or "-",
        "parameters": count(answer["parameters"]),
        "quantization": answer["quantization"] or "none",
        "stored as": dtypes or "-",
        "context length": f"{answer['context_length']} tokens" if answer["context_length"] else "-",
        "size": size(answer["size_bytes"]),
        "modified": ago(time.time() - answer["modified_at"]),
        "revision": answer["revision"],
        "folder": answer["path"],
        "aliases": answer["aliases"],
        "adapters": answer["adapters"],
    }
    render.say(answer["model"])
    render.tree(head, "  ")
    if answer["problem"]:
        render.say(f"  problem: {answer['problem']}")
    _files(answer["files"])
    _needs(answer["needs"])
    if answer["took_s"]:
        render.say("\nits moves have taken")
        render.tree({move: f"{took:.1f} s" for move, took in answer["took_s"].items()}, "  ")
    render.say(
        "\nmodels.yaml" if answer["entry"] else "\nmodels.yaml says nothing of it: `vllama assign` does"
    )
    render.tree(answer["entry"], "  ")


def count(parameters: int) -> str:
    """Parameters for people: 135 M."""
    for unit, length in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if parameters >= length:
            amount = parameters / length
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return str(parameters) if parameters else "its files do not say"


def _files(files: list[Mapping[str, Any]]) -> None:
    """The largest, and how many more."""
    render.say(f"\nfiles ({len(files)})")
    largest = sorted(files, key=lambda file: -file["bytes"])[:FILES_SHOWN_MAX]
    render.tree({file["name"]: size(file["bytes"]) for file in largest}, "  ")
    if (more := len(files) - len(largest)) > 0:
        render.say(f"  and {more} smaller")


def _needs(needs: Mapping[str, Any]) -> None:
    if needs["problem"]:
        render.say(f"\nit cannot be on this machine: {needs['problem']}")
        return
    render.say(f"\nwhat it will take, {needs['where']}")
    for each in needs["devices"]:
        fits = "" if each["fits"] else "; that is too little"
        name = each["name"] if each["device"] == "cpu" else f"{each['name']} ({each['device']})"
        render.say(f"  {size(each['need_bytes'])} of {name}, which has {size(each['total_bytes'])}{fits}")
        cache = size(each["kv_bytes"]) + (f", for {each['kv_tokens']} tokens" if each["kv_tokens"] else "")
        parts = {
            "weights": size(each["weights_bytes"]),
            "KV cache": cache,
            "the rest": size(each["overhead_bytes"]),
        }
        measured = each["measured"] or {}
        for key, words in (
            ("awake_bytes", "measured awake"),
            ("level_1_bytes", "left asleep at level 1"),
            ("level_2_bytes", "left asleep at level 2"),
        ):
            if measured.get(key):
                parts[words] = size(measured[key])
        render.tree(parts, "    ")
        render.folded(f"why: {each['why']}", "    ")


class Steps:
    """A pull under way: bars on a terminal, else a line for each file. Use as a context manager."""

    def __init__(self, model: str, revision: str) -> None:
        self._model, self._revision = model, revision
        self._bars: Bars | None = None
        self._said: set[str] = set()
        self.summary = ""

    def __enter__(self) -> "Steps":
        if sys.stdout.isatty():
            from vllama.cli.bars import Bars

            self._bars = Bars()
            self._bars.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.__exit__(kind, error, trace)

    def take(self, step: Mapping[str, Any]) -> None:
        """One step, as POST /control/pull tells it."""
        file, total, completed = step.get("file") or "", step.get("total") or 0, step.get("completed") or 0
        if step["status"] == "success":
            commit = str(step["revision"])
            self.summary = (
                f"{self._model}: complete, {size(total) if total else 'all'}, revision {commit[:12]}"
            )
            self.summary += self._of_served(commit, str(step.get("served") or commit))
        elif not file:
            self._status(str(step["status"]))
        elif self._bars is not None:
            self._bars.moved(file, total, completed)
        elif completed >= total and file not in self._said:
            self._said.add(file)
            render.say(f"{file}  {size(total)}")

    def _of_served(self, commit: str, served: str) -> str:
        """Who pulls another revision than the one that is served is told so, and what serves his."""
        if served == commit:
            return "" if self._revision == "main" else "; it is what is served now"
        return (
            f"\n{self._model}: what is served is still revision {served[:12]}: "
            f"`vllama assign {self._model} --revision {self._revision}` serves the one that was pulled"
        )

    def _status(self, words: str) -> None:
        if self._bars is not None:
            self._bars.status(words)
        else:
            render.say(words)
