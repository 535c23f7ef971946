"""Records simulated histories as fixtures for tests/replay: a saved journal, then the state that it ended in.

    .venv/bin/python tools/record_journal.py SEED [SEED ...]

An old fixture is never recorded anew to make a test pass: it is what an older vllama wrote.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.simulation.world import World  # noqa: E402 - found by the line above
from vllama.actors.codec import encode  # noqa: E402


def record(seed: int) -> Path:
    """One short history as a file."""
    world = World(seed)
    world.run(asks=8, until_s=20.0)
    states = world.journal.states
    lines = [
        *world.journal.saved(),
        {"kind": "End", "states": {a: encode(states.state(a)) for a in states.actors()}},
    ]
    path = ROOT / "tests" / "replay" / "journals" / f"seed-{seed}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(record(int(argument)))
