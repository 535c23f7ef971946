"""Waiting for something that others bring about, with a bound and a way to be hurried."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def until(
    done: Callable[[], bool], changed: asyncio.Event, timeout_s: float, hurry: asyncio.Event | None
) -> None:
    """Return when `done` (looked at whenever `changed` is set), when `timeout_s` has passed, or when `hurry` is set."""
    deadline = time.monotonic() + timeout_s
    while not done() and not (hurry is not None and hurry.is_set()):
        left = deadline - time.monotonic()
        if left <= 0:
            return
        changed.clear()
        waits = [changed.wait(), *([hurry.wait()] if hurry is not None else [])]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_ignore(wait)) for wait in waits]
            await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()


async def _ignore(wait: Awaitable[object]) -> None:
    await wait
