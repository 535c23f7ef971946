"""Why: each wait, eviction and refusal, folded from the journal and from nothing else."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from vllama.actors.core.state import BROKER
from vllama.actors.explain import room, waits
from vllama.actors.explain.episodes import Asked, Episode, Eviction
from vllama.actors.explain.ledger import Ledger
from vllama.actors.explain.telling import told
from vllama.actors.record import Record

__all__ = ["explained", "read"]


def read(records: Iterable[Record], request: str | None = None) -> Ledger:
    """Fold records, in order. The first may be missing: what they would have said is then not known."""
    ledger = Ledger(request)
    for record in records:
        rules = room.RULES if record.actor == BROKER else waits.RULES
        rule = rules.get(type(record.event))
        if rule is not None:
            rule(ledger, record.actor, record.event, record.at)
    return ledger


def explained(
    records: Iterable[Record],
    now: float,
    *,
    model: str | None = None,
    request: str | None = None,
    names: Mapping[str, str] | None = None,
    limit: int = 20,
) -> list[dict[str, Any]]:
    """The latest explanations in the order in which they began, in words and as data: all, those that a model has a part in,
    or a request and then its wait."""
    ledger = read(records, request)
    chosen = (
        _of_request(ledger)
        if request is not None
        else [e for e in ledger.episodes if model is None or _concerns(e, model)]
    )
    return [
        {"kind": type(episode).__name__.lower(), "words": told(episode, now, names or {}), **_data(episode)}
        for episode in chosen[-limit:]
    ]


def _of_request(ledger: Ledger) -> list[Episode]:
    """A request, then the wait that it was part of."""
    found: list[Episode] = []
    for asked in ledger.asked:
        found.append(asked)
        if asked.wait is not None and asked.wait not in found:
            found.append(asked.wait)
    return found


def _concerns(episode: Episode, model: str) -> bool:
    return episode.model == model or (isinstance(episode, Eviction) and episode.wanted_by == model)


def _data(episode: Episode) -> dict[str, Any]:
    tree = dataclasses.asdict(episode)
    if isinstance(episode, Asked):
        del tree["wait"]  # it stands beside it
    return tree
