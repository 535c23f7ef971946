"""What every message, event and effect is: a frozen dataclass."""

from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


def aside(*, default: Any) -> Any:
    """A field that is told beside what is said: advice for who reckons. Two facts that differ only in it are equal."""
    return field(default=default, compare=False)


@dataclass_transform(frozen_default=True, field_specifiers=(aside, field))
def fact(cls: type[T]) -> type[T]:
    """A frozen dataclass: two facts of different classes are never equal."""
    return dataclass(frozen=True, slots=True)(cls)
