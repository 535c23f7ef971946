"""Which engine made which response: /v1/responses/{id} names no model, and the engine keeps what it made in its own memory."""

import re
from collections import OrderedDict
from dataclasses import dataclass

from vllama.actors import System
from vllama.errors import ResponseUnknown, cited

MADE_MAX = 10_000
SOUGHT_BYTES_MAX = 2**16
_ID = re.compile(rb'"id"\s*:\s*"([A-Za-z0-9_-]{1,128})"')
_ALIVE = frozenset({"awake", "draining", "falling_asleep", "asleep", "waking"})


@dataclass(frozen=True, slots=True)
class Maker:
    """One life of one model's engine."""

    model: str
    run: int


class Responses:
    """The latest responses and their makers, by id."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, Maker] = OrderedDict()

    def remember(self, response_id: str, maker: Maker) -> None:
        self._made[response_id] = maker
        self._made.move_to_end(response_id)
        while len(self._made) > MADE_MAX:
            self._made.popitem(last=False)

    def maker_of(self, response_id: str, system: System) -> Maker:
        """The engine that made it, which lives. Raises ResponseUnknown: no engine is started for what it has not made."""
        maker = self._made.get(response_id)
        if maker is None:
            raise ResponseUnknown(f"No response {cited(response_id)!r} was made by an engine of this server.")
        phase = next((str(view.phase) for view in system.ps() if view.model == maker.model), "stopped")
        if phase not in _ALIVE:
            raise gone(response_id, maker.model)
        return maker


def gone(response_id: str, model: str) -> ResponseUnknown:
    """The engine that made a response has ended, and its memory with it."""
    return ResponseUnknown(
        f"The engine of {model} that made {response_id!r} has ended, and the response with it.", model=model
    )


class IdSeeker:
    """Finds the response's id in the first bytes of its answer, plain or streamed, before the caller can have seen it."""

    def __init__(self, responses: Responses, maker: Maker) -> None:
        self._responses = responses
        self._maker = maker
        self._head = b""
        self._done = False

    def feed(self, chunk: bytes) -> None:
        if self._done:
            return
        self._head += chunk
        if match := _ID.search(self._head):
            self._responses.remember(match[1].decode(), self._maker)
        self._done = match is not None or len(self._head) > SOUGHT_BYTES_MAX
        if self._done:
            self._head = b""
