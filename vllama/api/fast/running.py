"""What goes on beside the requests of the fast path: slow clients are let go, idle connections to engines are closed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from vllama.api.fast.common import Common

CLIENTS_LOOK_S = 0.5  # how often connections are looked at whose clients keep us waiting
ENGINES_LOOK_S = 1.0


@asynccontextmanager
async def running(common: Common) -> AsyncIterator[None]:
    """The fast path serves within; on leaving, every connection to an engine is closed."""
    try:
        async with asyncio.TaskGroup() as group:
            common.links.begin_in(group)
            looks = (
                group.create_task(_each(CLIENTS_LOOK_S, common.look)),
                group.create_task(_each(ENGINES_LOOK_S, common.links.look)),
            )
            yield
            for look in looks:
                look.cancel()
    finally:
        common.departures.close()
        common.links.close()


async def _each(seconds: float, call: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        call()
