"""The mind: what `api` may use of the actors."""

from vllama.actors.core.state import InstanceView, StateManager
from vllama.actors.journal import Gap, Journal, Record, Subscription, record_json
from vllama.actors.names import Route
from vllama.actors.operating import LogReader, reload, restart
from vllama.actors.system import CommandResult, System
from vllama.actors.ticket import Ticket

__all__ = [
    "CommandResult",
    "Gap",
    "InstanceView",
    "Journal",
    "LogReader",
    "Record",
    "Route",
    "StateManager",
    "Subscription",
    "System",
    "Ticket",
    "record_json",
    "reload",
    "restart",
]
