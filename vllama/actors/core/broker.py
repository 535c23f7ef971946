"""The broker: one writer for all devices. It grants memory leases and slots, and orders evictions.

Laws held here: what is booked on a device is never more than the device has; a lease has one holder; a grant wants a measurement
newer than the last transition; transitions on a CUDA device are one at a time. Messages change the books; then the
broker tells itself to plan again (planning.py), so that each plan reads settled books.
"""

from vllama.actors.core import broker_events as ev
from vllama.actors.core import refusals
from vllama.actors.core.broker_state import BrokerState, evolve
from vllama.actors.core.effects import TellInstance
from vllama.actors.core.messages import (
    BrokerMessage,
    Busy,
    Candidate,
    DeviceFound,
    EvictDeclined,
    HolderLost,
    Idle,
    LeaseRefused,
    Measured,
    Prioritize,
    Refusal,
    Replan,
    RequestLease,
    RequestSlot,
    ReturnCopy,
    ReturnLease,
    ReturnSlot,
    Tick,
)
from vllama.actors.core.planning import AGAIN, VOID, BrokerDecision, expects_change, measure, plan

__all__ = ["BrokerState", "decide", "evolve"]


def decide(s: BrokerState, m: BrokerMessage, now: float) -> BrokerDecision:
    """Say what happened and what to do about it; read nothing but the arguments."""
    match m:
        case Replan():
            return plan(s, now)
        case Busy(model, lease) if _answered(s, model, lease):
            return [ev.UseChanged(model, lease, 1, s.leases[model, lease].last_used)], []
        case Idle(model, lease, at) if _answered(s, model, lease):
            return [ev.UseChanged(model, lease, 0, at)], [AGAIN]
        case Candidate(model, lease) if _offered(s, model, lease):
            return [_answer(m)], [AGAIN]
        case EvictDeclined(model, lease) if _offered(s, model, lease):
            coming_up = s.leases[model, lease].priority
            return [ev.OfferAnswered(model, lease, 0.0, -1, False, 2, priority=coming_up)], [AGAIN]
        case Prioritize(model, lease, priority, pinned):
            found = s.leases.get((model, lease))
            return ([ev.LeasePrioritized(model, lease, priority, pinned)], [AGAIN]) if found else VOID
        case RequestLease():
            return _request(s, m, now)
        case ReturnLease():
            return _return(s, m, now)
        case RequestSlot() | ReturnSlot() | ReturnCopy():
            return _move(s, m, now)
        case Measured(epoch, devices):
            return [ev.DevicesMeasured(epoch if devices else -1, devices, now)], [AGAIN] if devices else []
        case Tick():
            begun, effects = measure(s) if expects_change(s) else VOID
            return [ev.TickSet(on=False), *begun], [*effects, AGAIN]
        case DeviceFound(device, kind, total) if device not in s.devices:
            return [ev.DeviceAdded(device, kind, total)], []
        case HolderLost(model):
            return [ev.HolderForgotten(model)], [AGAIN]
    return VOID


def _answer(m: Candidate) -> ev.OfferAnswered:
    return ev.OfferAnswered(
        m.model,
        m.lease,
        m.last_used,
        m.in_flight,
        m.pinned,
        m.level,
        m.levels,
        m.copy_bytes,
        m.visits,
        m.priority,
    )


def _request(s: BrokerState, m: RequestLease, now: float) -> BrokerDecision:
    """Queue a need, or refuse at once what can never be met: exact weights above what the devices have."""
    if (m.model, m.lease) in s.leases:
        return VOID
    named = [s.devices[d] for d in (m.devices or s.devices) if d in s.devices]
    roomiest = max(named, key=lambda d: d.total_bytes, default=None)
    if roomiest is None or (m.devices and len(named) < len(m.devices)):
        text = (
            f"{m.model} is to run on {', '.join(m.devices) or 'any device'}, which this machine does not have"
        )
        refusal = Refusal("no_memory", text)
    elif (
        m.weights_bytes
        > (limit := min(named, key=lambda d: d.total_bytes) if m.devices else roomiest).total_bytes
    ):
        refusal = refusals.never_fits(m.model, m.weights_bytes, limit.total_bytes, limit.id)
    else:
        queued = ev.LeaseQueued(
            m.model,
            m.lease,
            m.bytes,
            m.weights_bytes,
            m.devices,
            m.fresh,
            now,
            m.squeeze,
            m.visits,
            m.priority,
            m.launched_bytes,
        )
        return [queued], [AGAIN]
    refused = TellInstance(m.model, LeaseRefused(m.lease, refusal))
    return [ev.LeaseDenied(m.model, m.lease, refusal)], [refused]


def _move(s: BrokerState, m: RequestSlot | ReturnSlot | ReturnCopy, now: float) -> BrokerDecision:
    """The right to be in transition, and the host's RAM that may come with it."""
    match m:
        case RequestSlot(model, slot, kind, devices, copy) if (model, slot) not in s.slots:
            return [ev.SlotQueued(model, slot, kind, devices, copy)], [AGAIN]
        case ReturnSlot(model, slot, copied, took_s, level) if (model, slot) in s.slots:
            return [ev.SlotFreed(model, slot, copied, took_s, level, now)], [AGAIN]
        case ReturnCopy(model) if model in s.copies:
            return [ev.CopyFreed(model)], []
    return VOID


def _return(s: BrokerState, m: ReturnLease, now: float) -> BrokerDecision:
    model, lease, residue = m.model, m.lease, m.residue_bytes
    found = s.leases.get((model, lease))
    if found is None:
        return VOID
    if found.state == "waiting":
        return [ev.LeaseWithdrawn(model, lease)], [AGAIN]
    if found.state == "returning" and residue >= found.residue_bytes:
        return VOID
    gone = ev.LeaseReturning(model, lease, residue, m.last_used, now, m.visits, m.priority, m.pinned)
    return [gone], [AGAIN]


def _offered(s: BrokerState, model: str, lease: int) -> bool:
    found = s.leases.get((model, lease))
    return found is not None and found.offered and found.state == "held"


def _answered(s: BrokerState, model: str, lease: int) -> bool:
    return _offered(s, model, lease) and s.leases[model, lease].answered
