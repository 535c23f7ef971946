"""What the doctor found out about one thing."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """`ok`; `note`: it works, but look; `broken`: it does not. `mend` says how, "" where nothing is to be done."""

    about: str
    state: Literal["ok", "note", "broken"]
    says: str
    mend: str = ""


def ok(about: str, says: str) -> Finding:
    return Finding(about, "ok", says)


def note(about: str, says: str, mend: str = "") -> Finding:
    return Finding(about, "note", says, mend)


def broken(about: str, says: str, mend: str) -> Finding:
    return Finding(about, "broken", says, mend)
