"""The bodies of our own endpoints. What is not known is refused: a misspelt `forse` must not mean "no force"."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EmptyBody(BaseModel):
    """`reload`: nothing to say."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ModelBody(BaseModel):
    """`start` and `stop`: which model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(min_length=1)


class SleepBody(ModelBody):
    """`sleep`: how deep, and whether what is in flight is cut off instead of waited for."""

    level: Literal[1, 2, 3] = 2
    force: bool = False
