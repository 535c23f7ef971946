"""What the data path asks of the actors, and all that it asks: names, kinds, tickets.

The System is one; another process may hold one that gets its tickets from the System's. Nothing here waits but `route`, `answer`
and `ensure_instance_running`: a request for an awake engine goes through `find`, `kind_of`, `ask` and `Pending.answered` without
a task of its own.
"""

from typing import Protocol

from vllama.actors.ticket import Pending, Ticket
from vllama.config import VllamaConfig
from vllama.names import Route


class Kinds(Protocol):
    """The part of the catalog that the data path reads."""

    def kind_of(self, model: str) -> str:
        """What a model surely does ("chat", "embedding", "rerank"); "" where its engine has to be asked."""


class Desk(Protocol):
    """Where a request gets its right to an engine. Every method is called on the loop that serves the request."""

    @property
    def config(self) -> VllamaConfig:
        """The server's settings."""

    @property
    def stopping(self) -> bool:
        """From the first signal on: nothing is admitted any more."""

    @property
    def catalog(self) -> Kinds:
        """What is known of each model."""

    def find(self, name: str) -> Route | None:
        """Which model a name means, from memory alone; None when it means none that is known."""

    def ask(self, model: str, request_id: str = "", priority: int | None = None) -> Pending | None:
        """Ask for a ticket, without waiting: `answered()` has it on return if the engine is awake, else `Pending.then` says when.
        None: no instance of this name has begun (`ensure_instance_running` begins it). Raises QueueFull, ShuttingDown."""

    def give_up(self, pending: Pending) -> None:
        """Who asked has left before the answer; a ticket that has crossed is released. Twice does nothing."""

    def keep_alive(self, model: str, for_s: float) -> None:
        """How long a model (its id) stays awake when nobody uses it, from now on; below 0: for ever. A request that holds its
        ticket says so before it releases it."""

    async def answer(self, pending: Pending, wait_s: float | None = None) -> Ticket:
        """What an ask comes to. Raises VllamaError; leaving it gives the ask up."""

    async def route(self, name: str) -> Route:
        """The same as `find`; for a name that is not known the cache is looked at once more. Raises ModelUnknown."""

    async def ensure_instance_running(
        self, model: str, wait_s: float | None = None, request_id: str = "", priority: int | None = None
    ) -> Ticket:
        """A ticket for an awake engine of this model, which is begun, started or woken if need be. Raises VllamaError."""
