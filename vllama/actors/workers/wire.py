"""What a worker process and the system say to each other: one class each, msgpack arrays with a tag, several a frame."""

from typing import Literal

import msgspec


class _Said(msgspec.Struct, array_like=True, tag=True, gc=False):
    """A message; its class's name is its tag."""


# --- the worker says ------------------------------------------------------------------------------------------------------


class Ready(_Said):
    """It accepts connections."""


class Ask(_Said):
    """A request wants an engine; answered by Admitted or Refused."""

    ref: int
    model: str
    request: str
    priority: int | None


class Leave(_Said):
    """The caller of an ask is gone."""

    ref: int


class Seek(_Said):
    """Which model does this name mean? Answered by Found or Refused."""

    ref: int
    name: str


class Done(_Said):
    """What was done since the last time: by batch, the ids of the requests that took its next tickets; the asks that are over."""

    used: list[tuple[int, list[str]]]
    ended: list[int]


class Returned(_Said):
    """The batch admits nothing more; all that it admitted has been said."""

    batch: int


class Unreachable(_Said):
    """Nobody listens at this model's engine."""

    model: str
    run: int


class KeepAlive(_Said):
    """How long this model stays awake from now on when nobody uses it."""

    model: str
    for_s: float


class Counted(_Said):
    """Traffic since the last time, as api/traffic.py has it: by model, route and status."""

    cells: list[tuple[tuple[str, str, int], list[float]]]


class Handed(_Said):
    """A connection that is the system's to serve, with what was read of it. Its descriptor comes with the frame."""

    data: bytes


# --- the system says ------------------------------------------------------------------------------------------------------


class Setup(_Said):
    """The first message: the settings as JSON (keys left out), and who may ask."""

    config: bytes
    data_keys: list[bytes]
    control_keys: list[bytes]
    control_off: bool


class Model(msgspec.Struct, array_like=True, gc=False):
    """One model of the catalog: its names, and what it surely does."""

    id: str
    kind: str
    aliases: list[str]
    adapters: list[str]


class Names(_Said):
    """The catalog as it is from now on."""

    models: list[Model]


class Found(_Said):
    ref: int
    model: str
    served: str


class Admitted(_Said):
    """A ticket for one request."""

    ref: int
    ask: int
    model: str
    run: int
    port: int
    how: Literal["warm", "wake", "cold"]


class Refused(_Said):
    """An error, by its code in errors.py."""

    ref: int
    code: str
    message: str
    model: str | None
    retry_after_s: float | None


class Given(_Said):
    """Tickets to admit on without asking: the asks `batch` to `batch + count - 1`."""

    batch: int
    model: str
    run: int
    port: int
    count: int


class Recalled(_Said):
    """Take no more of this batch, and say Returned."""

    batch: int


class Aborted(_Said):
    """Cut these off: by number, or by the batches (first ask, count) that they were admitted on."""

    asks: list[int]
    spans: list[tuple[int, int]]


class Stopping(_Said):
    """Admit nothing more: the server ends."""


class End(_Said):
    """Close the listener and what is left, and exit."""


FromWorker = Ready | Ask | Leave | Seek | Done | Returned | Unreachable | KeepAlive | Counted | Handed
FromSystem = Setup | Names | Found | Admitted | Refused | Given | Recalled | Aborted | Stopping | End

encode = msgspec.msgpack.Encoder().encode
from_worker = msgspec.msgpack.Decoder(list[FromWorker])
from_system = msgspec.msgpack.Decoder(list[FromSystem])
