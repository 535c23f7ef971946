"""One timer for each actor: a new one replaces the last."""

import asyncio
from collections.abc import Callable


class Timers:
    """What the cores ask for by SetTimer and SetTick."""

    def __init__(self, tell: Callable[[str, object, int], None]) -> None:
        self._tell = tell
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def set(self, actor: str, delay_s: float, message: object) -> None:
        """The actor hears this after the delay."""
        if (old := self._handles.pop(actor, None)) is not None:
            old.cancel()
        self._handles[actor] = asyncio.get_running_loop().call_later(delay_s, self._tell, actor, message, 0)

    def cancel(self) -> None:
        """None of them rings any more."""
        for handle in self._handles.values():
            handle.cancel()
