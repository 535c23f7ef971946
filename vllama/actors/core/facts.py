"""What every message, event and effect is: a dataclass that nobody changes.

Frozen for the type checker, not at run time: a frozen dataclass sets each field through a call, which made a fact three times as
dear, and a warm request makes five of them (bench/mailbox.py).
"""

from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


def aside(*, default: Any) -> Any:
    """A field that is told beside what is said: advice for who reckons. Two facts that differ only in it are equal."""
    return field(default=default, compare=False)


@dataclass_transform(frozen_default=True, field_specifiers=(aside, field))
def fact(cls: type[T]) -> type[T]:
    """Its fields, equality and hash: two facts of different classes are never equal."""
    return dataclass(unsafe_hash=True, slots=True)(cls)
