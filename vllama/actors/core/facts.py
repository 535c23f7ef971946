"""What every message, event and effect is: a frozen dataclass."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def fact(cls: type[T]) -> type[T]:
    """A frozen dataclass: two facts of different classes are never equal."""
    return dataclass(frozen=True, slots=True)(cls)
