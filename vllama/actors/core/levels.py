"""What an instance cannot do of the sleep levels, and why, in words: for `ps`, and for the answer to a command."""

from vllama.actors.core import refusals
from vllama.actors.core.instance_state import State


def notes_on(s: State) -> tuple[str, ...]:
    """One sentence for each level that is not to be had."""
    notes: list[str] = []
    if s.sleep_mode_off == "proven":
        notes.append(
            "level 3 only: with vLLM's sleep mode its start ran out of memory, without it it did not"
        )
    elif s.alive and not s.can_sleep:
        notes.append("level 3 only: it was started without vLLM's sleep mode")
    for level, count in sorted(s.misses.items()):
        if count >= s.policy.misses_max:
            notes.append(f"level {level} is not used any more: {count} wakes from it failed")
    if s.residue_grown:
        notes.append(
            f"is stopped at its next sleep: asleep it held {refusals.human(s.residue_last)}, at first "
            f"{refusals.human(s.residue_first)}"
        )
    if s.copy_denied:
        notes.append(refusals.no_copy(s))
    return tuple(notes)
