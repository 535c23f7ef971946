"""The mind: what `api` may use of the actors."""

from vllama.actors.asking import explain
from vllama.actors.codec import encode
from vllama.actors.core.state import InstanceView, StateManager
from vllama.actors.desk import Desk
from vllama.actors.glance import Glance, glances
from vllama.actors.history import history, told
from vllama.actors.journal import Journal, record_json
from vllama.actors.operating import LogReader, reload, restart
from vllama.actors.planned import plan
from vllama.actors.record import Gap, Record
from vllama.actors.saved import Moment, SavedJournal
from vllama.actors.showing import listed, shown
from vllama.actors.store import Removed, chat_template, copy, delete, pull
from vllama.actors.subscription import Subscription
from vllama.actors.system import CommandResult, System
from vllama.actors.tally import Histogram, Tally
from vllama.actors.tally.books import books
from vllama.actors.ticket import Pending, Ticket
from vllama.actors.wording import sentence
from vllama.actors.workers.access import WorkerAccess
from vllama.actors.workers.remote import RemoteDesk
from vllama.actors.workers.teller import Teller
from vllama.names import Route

__all__ = [
    "CommandResult",
    "Desk",
    "Gap",
    "Glance",
    "Histogram",
    "InstanceView",
    "Journal",
    "LogReader",
    "Moment",
    "Pending",
    "Record",
    "RemoteDesk",
    "Removed",
    "Route",
    "SavedJournal",
    "StateManager",
    "Subscription",
    "System",
    "Tally",
    "Teller",
    "Ticket",
    "WorkerAccess",
    "books",
    "chat_template",
    "copy",
    "delete",
    "encode",
    "explain",
    "glances",
    "history",
    "listed",
    "plan",
    "pull",
    "record_json",
    "reload",
    "restart",
    "sentence",
    "shown",
    "told",
]
