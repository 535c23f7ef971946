"""What the broker's books hold now, as rows: memory by device and kind, leases and slots by state."""

from collections import Counter
from typing import NamedTuple

from vllama.actors.core.broker_state import BrokerState

# A lease's state in the words of who looks at memory.
KINDS = {"held": "awake", "returning": "returning", "residue": "residue"}


class Books(NamedTuple):
    """Rows of (labels..., number)."""

    devices: list[tuple[str, str, int]]  # device, kind, bytes; together they are all of the device
    models: list[tuple[str, str, str, int]]  # model, device, kind, bytes
    totals: list[tuple[str, int]]
    measured_free: list[tuple[str, int]]
    unattributed: list[tuple[str, int]]
    leases: list[tuple[str, int]]  # state, how many
    slots: list[tuple[str, int]]
    copies: list[tuple[str, int]]  # model, bytes of the host's RAM
    copies_max: int
    oldest_wait_since: float | None


def books(state: BrokerState) -> Books:
    """A look at them; law 4 makes the rows of a device add up to what it has."""
    devices: list[tuple[str, str, int]] = []
    models: list[tuple[str, str, str, int]] = []
    for device in state.devices.values():
        sums: Counter[str] = Counter()
        for lease in state.on(device.id):
            models.append((lease.model, device.id, KINDS[lease.state], lease.bytes))
            sums[KINDS[lease.state]] += lease.bytes
        for model, unreturned in device.unreturned.items():
            models.append((model, device.id, "unreturned", unreturned))
            sums["unreturned"] += unreturned
        taken = sum(sums.values())
        sums["shared"] = min(device.shared_bytes, max(device.total_bytes - taken, 0))
        sums["free"] = max(device.total_bytes - taken - sums["shared"], 0)
        kinds = (*KINDS.values(), "unreturned", "shared", "free")
        devices += [(device.id, kind, sums[kind]) for kind in kinds]
    leases: Counter[str] = Counter(lease.state for lease in state.leases.values())
    slots = Counter("held" if slot.held else "waiting" for slot in state.slots.values())
    waiting = [lease.asked_at for lease in state.leases.values() if lease.state == "waiting"]
    return Books(
        devices=devices,
        models=models,
        totals=[(d.id, d.total_bytes) for d in state.devices.values()],
        measured_free=[(d.id, d.free_measured) for d in state.devices.values()],
        unattributed=[(d.id, d.unattributed_bytes) for d in state.devices.values()],
        leases=[(kind, leases[kind]) for kind in ("waiting", *KINDS)],
        slots=[(kind, slots[kind]) for kind in ("waiting", "held")],
        copies=list(state.copies.items()),
        copies_max=state.policy.sleep_ram_max_bytes,
        oldest_wait_since=min(waiting, default=None),
    )
