"""Records and states as JSON and back: what the debug stream sends and what a saved journal holds."""

import dataclasses
import functools
import types
import typing
from enum import Enum
from typing import Any

from vllama.actors.core import broker_events, broker_state, instance_state, messages
from vllama.actors.core import events as ev

VERSION = 1  # of the journal's format; a reader refuses a newer one
EVENTS: dict[str, type] = {
    cls.__name__: cls
    for module in (ev, broker_events)
    for cls in vars(module).values()
    if isinstance(cls, type) and cls.__module__ == module.__name__
}


def encode(value: object) -> Any:
    """Plain JSON data from a fact, a state or what they contain."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = (f.name for f in dataclasses.fields(value) if not f.metadata.get("derived"))
        return {name: encode(getattr(value, name)) for name in kept}
    if isinstance(value, dict):
        if any(not isinstance(key, str) for key in value):
            return [[encode(key), encode(item)] for key, item in value.items()]
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    return value


def decode(kind: Any, data: Any) -> Any:
    """The value of type `kind` that `encode` turned into `data`. Raises KeyError, TypeError, ValueError."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        return kind(**{name: decode(hints[name], item) for name, item in data.items()})
    if origin is tuple:
        each = args[:1] * len(data) if args[-1:] == (...,) else args
        return tuple(decode(t, item) for t, item in zip(each, data, strict=True))
    if origin is dict:
        pairs = data.items() if isinstance(data, dict) else data
        return {decode(args[0], key): decode(args[1], item) for key, item in pairs}
    if origin in (typing.Union, types.UnionType):
        return None if data is None else decode(next(t for t in args if t is not type(None)), data)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    return data


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    namespace = {**vars(messages), **vars(instance_state), **vars(broker_state)}
    return typing.get_type_hints(kind, globalns={**vars(dataclasses), **namespace})


def encode_event(event: ev.Event) -> dict[str, Any]:
    """`kind` and the event's own fields, flat."""
    return {"kind": type(event).__name__, **encode(event)}


def decode_event(data: dict[str, Any]) -> ev.Event:
    """Back from `encode_event`'s flat form; unknown keys (seq, at, ...) are left out."""
    kind = EVENTS[data["kind"]]
    fields = {f.name for f in dataclasses.fields(kind)}
    return typing.cast("ev.Event", decode(kind, {k: v for k, v in data.items() if k in fields}))
