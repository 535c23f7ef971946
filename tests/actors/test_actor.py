"""The loop: a turn at once where nothing waits, else in order. Commands from outside have a bound, outcomes have none."""

import asyncio

import pytest

from vllama.actors.actor import Actor
from vllama.actors.admissions import Admissions
from vllama.actors.core import effects as fx
from vllama.actors.core import instance
from vllama.actors.core import messages as msg
from vllama.actors.core.instance_state import State
from vllama.actors.journal import Journal
from vllama.errors import QueueFull

BOUND = 3


class Crowd:
    """An instance of this mailbox, and what comes to it in the middle of its first turn."""

    def __init__(self, asks: int) -> None:
        self.asks = asks
        self.refused: list[QueueFull] = []
        self.turns = 0
        state = State(model="m", need=msg.Need(100, 60))
        journal = Journal(lambda: 1.0)
        args = (journal, self.perform, lambda: 1.0, self.bug)
        self.actor = Actor("m", state, instance.decide, instance.evolve, *args, BOUND)
        self.admissions = Admissions({"m": self.actor}, asyncio.Event())

    def ask(self, number: int) -> None:
        try:
            self.admissions.ask(number, self.actor, "")
        except QueueFull as error:
            self.refused.append(error)

    def perform(self, actor: Actor[State], effect: fx.Effect, cause: int) -> None:
        """The request for memory, which the first ask makes."""
        self.turns += 1
        if self.turns == 1:
            for number in range(self.asks):
                self.ask(2 + number)
            assert list(actor.state.waiting) == [1]  # they wait for the end of the turn
            for number in range(10 * BOUND):  # callers leave: nothing of that may be lost
                actor.tell(msg.Release(2 + number))
            actor.tell(msg.Acquire(100))

    def bug(self, actor: Actor[State], error: Exception, cause: int) -> None:
        raise AssertionError("a bug") from error


async def worked_off(actor: Actor[State]) -> None:
    """The mailbox is in order: what was told last is seen last."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(actor.run())
        while 100 not in actor.state.waiting:  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0)
        running.cancel()


@pytest.mark.parametrize(("asks", "refused"), [(BOUND, 0), (BOUND + 4, 4)])
def test_a_full_mailbox_refuses_commands_and_loses_no_outcome(asks: int, refused: int) -> None:
    async def story() -> None:
        crowd = Crowd(asks)
        crowd.ask(1)
        await worked_off(crowd.actor)
        assert list(crowd.actor.state.waiting) == [1, 100]  # the others have left since
        assert len(crowd.refused) == refused
        assert {(error.code, error.retry_after_s) for error in crowd.refused} <= {("queue_full", 1)}

    asyncio.run(story())
