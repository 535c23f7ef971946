"""What a move of a model takes, in seconds: as measured, and before that as published figures and its weights let expect."""

from vllama.actors.core.known import Known
from vllama.actors.core.messages import Level

# Until it is measured (design/scheduling.md has the sources): A100, PCIe Gen4, weights in the page cache.
START_S = 40.0
STOP_S = 1.0
WAKE_1 = (0.2, 21e9)  # seconds, then bytes a second
WAKE_2 = (0.5, 2.85e9)
SLEEP_1 = (0.1, 21e9)
SLEEP_2_S = 0.3
PIN = (0.1, 3e9)  # the first sleep at level 1


def up_s(known: Known, level: Level, weights: int) -> float:
    """From `level` to awake."""
    if level >= 3:
        return known.seconds.get("start", START_S)
    fixed, speed = WAKE_1 if level == 1 else WAKE_2
    return known.seconds.get(f"wake-{level}", fixed + weights / speed)


def down_s(known: Known, level: Level, weights: int) -> float:
    """From awake to `level`; to 1 once its host RAM is pinned."""
    match level:
        case 1:
            return known.seconds.get("sleep-1", SLEEP_1[0] + weights / SLEEP_1[1])
        case 2:
            return known.seconds.get("sleep-2", SLEEP_2_S)
        case _:
            return known.seconds.get("stop", STOP_S)


def pin_s(known: Known, weights: int) -> float:
    """What the first sleep at level 1 takes beyond those that follow."""
    first = known.seconds.get("pin", PIN[0] + weights / PIN[1])
    return max(first - down_s(known, 1, weights), 0.0)
