"""How urgently a model is wanted: the highest priority of those who wait for it. Its own is what a request has that says none.

The broker hears it with the request for memory, and again whenever it changes while that waits.
"""

from collections.abc import Iterable

from vllama.actors.core import effects as fx
from vllama.actors.core import events as ev
from vllama.actors.core.instance_state import State
from vllama.actors.core.messages import Policy, Prioritize

Move = tuple[list[ev.InstanceEvent], list[fx.InstanceEffect]]


def of_waiting(s: State, policy: Policy, *, without: int | None = None) -> int:
    """The highest of those who wait; the model's own where nobody does."""
    waiting = len(s.waiting) - (without in s.waiting)
    own = [priority for ask, priority in s.own_priorities.items() if ask != without]
    if len(own) < waiting or not own or _started(s):
        own.append(policy.priority)
    return max(own)


def with_one_more(s: State, priority: int | None) -> int:
    """The same once this request, or command, waits too."""
    mine = s.policy.priority if priority is None else priority
    return max(mine, of_waiting(s, s.policy)) if _wanted(s) else mine


def _wanted(s: State) -> bool:
    return bool(s.waiting) or _started(s)


def _started(s: State) -> bool:
    """A command wants it awake."""
    return any(goal.verb == "start" for goal in s.goals.values())


def told(s: State, priority: int) -> Move:
    """The broker hears of it, if it has the request for memory and knows another priority."""
    if s.lease_state != "waiting" or priority == s.urgency:
        return [], []
    return [ev.UrgencyChanged(priority)], [fx.TellBroker(Prioritize(s.model, s.lease, priority))]


def joined(s: State, priority: int | None) -> Move:
    """One more waits. Whoever is not more urgent than the others changes nothing."""
    mine = s.policy.priority if priority is None else priority
    return told(s, max(mine, s.urgency) if _wanted(s) else mine)


def left(s: State, ask: int) -> Move:
    """One of several who wait has left; only the most urgent one was heard of."""
    if s.own_priorities.get(ask, s.policy.priority) < s.urgency:
        return [], []
    return told(s, of_waiting(s, s.policy, without=ask))


def configured(s: State, policy: Policy) -> Move:
    """The model's own priority or pin has changed: what waits for memory, and what its sleeper holds, are looked at anew."""
    if (policy.priority, policy.pinned) == (s.policy.priority, s.policy.pinned):
        return [], []
    events, effects = told(s, of_waiting(s, policy))
    if s.residue_lease:
        changed = Prioritize(s.model, s.residue_lease, policy.priority, policy.pinned)
        effects.append(fx.TellBroker(changed))
    return events, effects


def in_order(s: State, asks: Iterable[int]) -> list[int]:
    """The more urgent ones first, else as they came."""
    if not s.own_priorities:
        return list(asks)
    return sorted(asks, key=lambda ask: -s.own_priorities.get(ask, s.policy.priority))
