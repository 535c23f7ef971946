"""`replay`: a saved journal, told in words and folded, with no server at hand."""

import datetime as dt
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from vllama.cli import render
from vllama.cli.control import FAILED, USAGE, Json
from vllama.errors import JournalBroken

if TYPE_CHECKING:
    from vllama.actors import Moment, SavedJournal


def replay(
    file: Annotated[Path, typer.Argument(help="What `vllama events --save` has written.")],
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="SEQ|TIME",
            help="Show every actor's state then: after record SEQ, or at a time: 09:31:02, 2026-05-01T09:31:02, @1780000000.5.",
        ),
    ] = None,
    step: Annotated[
        bool,
        typer.Option(
            "--step",
            help="Step through it: each record with what it changed, from --at on; on a terminal one at a time.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Tell a saved journal record by record and check that it folds to the state that was live; or step through it, each record
    with what it changed; or show the state at a moment."""
    try:
        journal = _read(file)
        if step:
            _step(journal, _moment(at, journal) if at is not None else None, json)
        elif at is None:
            _tell(journal, json)
        else:
            _show(journal, _moment(at, journal), json)
    except JournalBroken as error:
        _fail(f"{file}:{error.line}: {error.message}")


def _read(file: Path) -> "SavedJournal":
    from vllama.actors import SavedJournal

    try:
        with file.open(encoding="utf-8") as text:
            return SavedJournal.read(text)
    except (OSError, UnicodeDecodeError) as error:
        _fail(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}")


def _tell(journal: "SavedJournal", json: bool) -> None:
    """Every record in words, then whether the fold is what was live."""
    from vllama.actors import record_json, sentence

    journal.fold()
    if not json:
        render.say(
            f"{_clock(journal.at)}  the state after record {journal.seq}: {_names(journal.base.actors())}"
        )
        for record in journal.records:
            render.say(f"{_clock(record.at)}  {record.seq:>7}  {record.actor}  {sentence(record)}")
    differences = journal.differences()
    if json:
        rows = [record_json(record) | {"words": sentence(record)} for record in journal.records]
        agrees = None if journal.end is None else not differences
        end = {"agrees": agrees, "differences": differences}
        render.as_json({"seq": journal.seq, "at": journal.at, "records": rows, "end": end})
    elif journal.end is None:
        render.say("no End line: there is no live state to hold the fold against")
    elif not differences:
        render.say(
            f"the fold of {len(journal.records)} records is the live state of {_names(list(journal.end))}"
        )
    if differences:
        more = f" (and {len(differences) - 5} more)" if len(differences) > 5 else ""
        _fail(f"the fold is not the live state that was saved: {'; '.join(differences[:5])}{more}")


def _step(journal: "SavedJournal", after: "Moment | None", json: bool) -> None:
    """Each record and what it changed. On a terminal Enter goes on, q ends."""
    from vllama.actors import record_json, sentence

    _check_begun(journal, after)
    rows = []
    for record, changes in journal.steps(after):
        if json:
            told = {place: {"before": was, "after": now} for place, (was, now) in changes.items()}
            rows.append(record_json(record) | {"words": sentence(record), "changes": told})
            continue
        render.say(f"{_clock(record.at)}  {record.seq:>7}  {record.actor}  {sentence(record)}")
        for place, (was, now) in changes.items():
            if was or now:
                render.say(f"{'':23}{place}: {_leaf(was)} -> {_leaf(now)}")
        if render.is_dialogue() and not render.goes_on():
            return
    if json:
        render.as_json({"seq": journal.seq, "at": journal.at, "steps": rows})


def _leaf(value: Any) -> str:
    return "-" if value is None or value in ("", [], {}) else str(value)


def _show(journal: "SavedJournal", moment: "Moment", json: bool) -> None:
    """Every actor's state at that moment."""
    from vllama.actors import encode, sentence

    _check_begun(journal, moment)
    states, last = journal.fold(moment)
    seq, at = (last.seq, last.at) if last else (journal.seq, journal.at)
    trees = {actor: encode(states.state(actor)) for actor in states.actors()}
    if json:
        render.as_json({"seq": seq, "at": at, "states": trees})
        return
    said = f": {last.actor} {sentence(last)}" if last else ""
    render.say(f"{_clock(at)}  after record {seq}{said}")
    for actor, tree in trees.items():
        render.say(f"\n{actor}")
        render.tree(_known(tree), "  ")


def _check_begun(journal: "SavedJournal", moment: "Moment | None") -> None:
    if moment is None:
        return
    early = moment.seq is not None and moment.seq < journal.seq
    if early or (moment.at is not None and moment.at < journal.at):
        _fail(
            f"the file begins after record {journal.seq}, at {_clock(journal.at)}: ask for a later moment",
            USAGE,
        )


def _known(tree: Any) -> Any:
    """Without what is empty, zero or not so: the rest is what there is to say."""
    if isinstance(tree, dict):
        return {key: _known(value) for key, value in tree.items() if value or key == "phase"}
    if isinstance(tree, list):
        return [_pair(item) for item in tree]
    return tree


def _pair(item: Any) -> Any:
    """A table whose keys are no names is saved as pairs of key and row."""
    if isinstance(item, list) and len(item) == 2 and isinstance(item[1], dict):
        return _known(item[1])
    return _known(item)


def _moment(given: str, journal: "SavedJournal") -> "Moment":
    from vllama.actors import Moment

    try:
        if given.isascii() and given.isdecimal():
            return Moment(seq=int(given))
        if given.startswith("@"):
            return Moment(at=float(given[1:]))
        begun = dt.datetime.fromtimestamp(journal.at)
        if re.fullmatch(r"\d\d:\d\d(:\d\d(\.\d{1,6})?)?", given):
            then = dt.datetime.combine(begun.date(), dt.time.fromisoformat(given))
            if then < begun.replace(microsecond=0):  # over midnight
                then += dt.timedelta(days=1)
            return Moment(at=then.timestamp())
        return Moment(at=dt.datetime.fromisoformat(given).timestamp())
    except ValueError:
        _fail(
            f"--at {given}: write a record's number, a time like 09:31:02 or 2026-05-01T09:31:02, or @SECONDS",
            USAGE,
        )


def _clock(at: float) -> str:
    return dt.datetime.fromtimestamp(at).strftime("%H:%M:%S.%f")[:-3]


def _names(actors: Any) -> str:
    return ", ".join(actors) or "nobody"


def _fail(text: str, code: int = FAILED) -> NoReturn:
    render.complain(text)
    raise typer.Exit(code)
