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


class PullBody(ModelBody):
    """`pull`: which model, at which branch, tag or commit."""

    revision: str = Field("main", min_length=1)


class DeleteBody(ModelBody):
    """`delete`: `stop` ends its engine first, where one is there."""

    stop: bool = False


class CopyBody(BaseModel):
    """`copy`: one more name for a model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: str = Field(min_length=1)
    destination: str = Field(min_length=1)
