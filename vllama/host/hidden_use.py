"""Whose memory is it on a GPU whose driver does not show our processes (as in most containers): an estimate. Pure.

Transitions on a GPU are one at a time, so what changes is the work of the launch that moved last. It gets the
difference between all that has no known owner and what had none before our first launch; the others keep what they had.
"""

from collections.abc import Collection, Mapping

NOISE_BYTES = 64 * 2**20  # a display, a driver's own tables: not an engine


class HiddenUse:
    """One device's estimate. What the driver shows of a launch is never estimated."""

    def __init__(self) -> None:
        self._before: int | None = None  # without an owner while no launch of ours was here
        self._held: dict[str, int] = {}
        self._here: set[str] = set()
        self._mover = ""

    def moving(self, launch_id: str) -> None:
        """This launch begins to take or to give memory. Look first: what changed so far is another's."""
        self._held.setdefault(launch_id, 0)
        self._mover = launch_id

    def look(
        self, ownerless: int, shown: Mapping[str, int], alive: Collection[str], *, seen: bool
    ) -> dict[str, int]:
        """Bytes by hidden launch now. `ownerless` is what the driver counts as used by nobody it names; `seen`: it names
        at least one process of ours."""
        ended = self._here - set(alive)
        for launch_id in ended:
            self._held.pop(launch_id, None)
        if ended:
            self._mover = ""  # what the dead have not given back yet is nobody's
        self._here = {launch_id for launch_id in alive if launch_id in self._held}
        if self._before is None or not self._here:
            self._before = ownerless
        self._before = min(self._before, ownerless)
        for launch_id in self._here:
            if shown.get(launch_id, 0):
                self._held[launch_id] = 0
        if self._mover in self._here and not shown.get(self._mover, 0) and not seen:
            others = sum(size for launch_id, size in self._held.items() if launch_id != self._mover)
            left = ownerless - self._before - others
            self._held[self._mover] = left if left > NOISE_BYTES else 0
        return {launch_id: self._held[launch_id] for launch_id in self._here if self._held[launch_id]}
