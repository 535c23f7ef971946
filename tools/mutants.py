"""Can the simulator fail? One-line mutants of the cores, each run through histories and stories until a law breaks. The histories
are those of the policy `lru`, then half as many of `cost`, in every other one of which entries change.

    .venv/bin/python tools/mutants.py [--histories 500] [--only TEXT]

A survivor is equivalent code, or a fault that the fake world does not have yet: the simulator's to-do list. The table lands in
design/mutants.md by hand, each survivor with its explanation.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = Path("vllama/actors/core")

# file, the line's text, what it becomes, what the mutant forgets
MUTANTS = (
    ("descent.py", "return mv.descend(s, level, \"evict\", now, busy=mv.busy(s), evict=True)",
     "return mv.descend(s, level, \"evict\", now, busy=False, evict=True)", "an eviction does not drain"),
    ("descent.py", "down = mv.descend(s, level, \"command\", now, busy=mv.busy(s))",
     "down = mv.descend(s, level, \"command\", now, busy=False)", "a command does not drain"),
    ("descent.py", "return join(over, going) if len(s.serving) == 1 and not s.lent else over",
     "return over", "the end of a drain asks for no slot"),
    ("descent.py", "            return mv.enqueue(s, m)\n        case Release(ask) if ask in s.serving:",
     "            return [ev.AskAdmitted(m.ask, now)], [fx.Admit(m.ask, s.run, \"warm\")]\n"
     "        case Release(ask) if ask in s.serving:",
     "draining admits"),
    ("descent.py", "case EngineAsleep(run, level, residue, freed, took_s) if run == s.run and not s.faulted:",
     "case EngineAsleep(run, level, residue, freed, took_s) if not s.faulted:", "no run on the outcome of a sleep"),
    ("descent.py", "    if mv.wanted(s) or (descent.why == \"pin\" and", "    if (descent.why == \"pin\" and",
     "who waited behind a sleep is forgotten"),
    ("descent.py", "case CancelEvict(lease) if lease == s.lease and s.descent.evict:",
     "case CancelEvict(lease) if False and lease == s.lease:", "a cancelled eviction goes on"),
    ("descent.py", "    if not s.serving and after_s is not None and idle_s >= after_s:",
     "    if after_s is not None and idle_s >= after_s:", "an idle timer does not look at what is in flight"),
    ("ascent.py", "case LeaseGranted(lease, size, devices) if lease == s.lease and s.lease_state == \"waiting\":",
     "case LeaseGranted(lease, size, devices) if s.lease_state == \"waiting\":", "no fencing number on a grant"),
    ("ascent.py", "case SlotGranted(slot) if slot == s.slot and s.slot_state == \"waiting\":",
     "case SlotGranted(slot) if s.slot_state == \"waiting\":", "no fencing number on a slot"),
    ("ascent.py", "return join(over, _leave(s, rest, now) if alone else urgency.left(s, ask))", "return over",
     "the last waiter leaves its request for memory behind"),
    ("ascent.py", "return [ev.EngineFaulted(run, why), *missed], [fx.Kill(run)]  # its exit does the rest",
     "return [ev.EngineFaulted(run, why), *missed], []", "a faulted engine is not killed"),
    ("ascent.py", "case EngineReady(run, steps) if run == s.run and not s.faulted:",
     "case EngineReady(run, steps) if run == s.run:", "a faulted engine may still become awake"),
    ("ascent.py", "        mv.drop_slot(s, took_s=took_s, level=s.level or 3),\n        mv.move_to(Phase.AWAKE, now),",
     "        mv.move_to(Phase.AWAKE, now),",
     "the slot of a start is kept"),
    ("ascent.py", "        mv.admit(s, s.waiting, how, now),\n", "", "who waited is not admitted"),
    ("ascent.py", "return join(_withdraw(s), mv.sink(s, now, \"residue\", evict=True))", "return VOID",
     "a sleeper that waits for its wake does not give way"),
    ("granting.py", "            or places.is_outgrown(lease)\n", "", "a wake is granted less than its engine takes"),
    ("granting.py", "    if places.is_outgrown(lease):\n        return _start_afresh(s, places, lease, devices, now)\n", "",
     "a sleeper that cannot be woken has others go"),
    ("granting.py", "        return VOID if patient else _start_afresh(s, places, lease, devices, now)", "        return VOID",
     "a sleeper that outsiders leave no room for waits on"),
    ("exits.py", "returned = join(gone, slot, mv.drop_lease(s), mv.drop_residue(s), mv.drop_copy(s))",
     "returned = join(gone, slot, mv.drop_residue(s), mv.drop_copy(s))", "a crash keeps the lease"),
    ("exits.py", "returned = join(gone, slot, mv.drop_lease(s), mv.drop_residue(s), mv.drop_copy(s))",
     "returned = join(gone, slot, mv.drop_lease(s), mv.drop_copy(s))", "a crash keeps the residue booked"),
    ("exits.py", "returned = join(gone, slot, mv.drop_lease(s), mv.drop_residue(s), mv.drop_copy(s))",
     "returned = join(gone, mv.drop_lease(s), mv.drop_residue(s), mv.drop_copy(s))", "a crash keeps the slot"),
    ("exits.py", "return join(down, mv.refuse(s.waiting, refusal), mv.deny(s, (\"start\",), rest, refusal))",
     "return join(down, mv.deny(s, (\"start\",), rest, refusal))", "who waited for a failed start is not told"),
    ("exits.py", "if mv.wanted(s) and once_more and not sentence.give_up:", "if mv.wanted(s):",
     "a failed start is tried for ever"),
    ("instance.py", "return exited(s, m, now) if s.alive and m.run == s.run else VOID",
     "return exited(s, m, now) if s.alive else VOID", "no run on an exit"),
    ("instance_state.py", "    s.serving.clear()  # their connections break by themselves; their Releases are void\n", "",
     "a crash leaves its requests in flight"),
    ("planning.py", "if fresh and still <= allowed:", "if fresh:", "memory counts as back before it is measured"),
    ("planning.py", "elif late:", "elif False:", "memory that never returns is waited for without bound"),
    ("planning.py", "    for slot in shelves.moving.values():\n        _take(s, slot, taken, starting)\n", "",
     "slots do not exclude one another"),
    ("planning.py", "    if s.measured_epoch != s.epoch:\n        return join(measure(s), _tick(s))\n", "",
     "a grant on an old measurement"),
    ("places.py", "        own = residue.bytes if residue else 0\n        fits = [", "        own = 0\n        fits = [",
     "a wake asks for what its sleeper holds already"),
    ("granting.py", "            _falling(s, lease)\n            or s.must_squeeze(lease)", "            s.must_squeeze(lease)",
     "a wake is granted while its sleeper's lease returns"),
    ("granting.py", "awake = [_holder(ls) for ls in held if not ls.pinned and ls.in_flight >= 0]",
     "awake = [_holder(ls) for ls in held if not ls.pinned]", "one that is coming up is evicted"),
    ("granting.py", "if not (ls.evicting or ls.pinned) and ls.model != lease.model",
     "if not ls.evicting and ls.model != lease.model", "a pinned sleeper is stopped"),
    ("descent.py", "s.visits, priority, pinned)", "s.visits, priority)", "a sleeper does not say that it is pinned"),
    ("planning.py", "            if any(ls.state == \"held\" and not ls.settled for ls in mine):\n                continue  "
     "# what it takes anew would hide what it has not given back\n",
     "", "what a sleeper has not returned is forgotten at its wake"),
    ("broker_state.py", "return max(min(d.total_bytes - self.booked_bytes(device), d.free_measured - promised), 0)",
     "return max(d.free_measured - promised, 0)", "only what is measured counts, not the books"),
    ("broker_state.py", "return max(min(d.total_bytes - self.booked_bytes(device), d.free_measured - promised), 0)",
     "return max(d.total_bytes - self.booked_bytes(device), 0)", "only the books count, not what is measured"),
    ("broker_state.py", "        _forget(s, residue.model, residue.lease)\n", "        pass\n",
     "a wake's lease does not cover the residue"),
    ("shelves.py",
     "        if \"residue\" in (lease.state, old[0] if old else \"\"):\n            self._residue_changed(lease.model)\n", "",
     "who waits is not filed anew when its sleeper holds less"),
    ("shelves.py", "            shelf.coming_bytes -= coming\n", "", "what has come back is still said to be on its way"),
    ("granting.py", "            reserved.update(lease.devices or s.devices)\n", "", "a late waiter is overtaken"),
    ("urgency.py", "return told(s, max(mine, s.urgency) if _wanted(s) else mine)", "return [], []",
     "the broker does not hear of a more urgent one that joins"),
    ("urgency.py", "    return told(s, of_waiting(s, s.policy, without=ask))\n", "    return [], []\n",
     "the broker does not hear that the most urgent one has left"),
    ("shelves.py", "LATE if lease.asked_at <= late_before else urgency, number, lease", "urgency, number, lease",
     "who has waited max_wait_s stays behind the more urgent"),
    ("restarts.py", "if recent >= policy.restarts_max:", "if recent > policy.restarts_max:", "one failure more before giving up"),
)  # fmt: skip

RUN = """
import sys
from tests.simulation.world import Broken, World
count = int(sys.argv[1])
plain = ((seed, {}) for seed in range(count))
others = ((seed, {"policy": "cost", "configuring": seed % 2 == 0}) for seed in range(count, count + count // 2))
for seed, more in (*plain, *others):
    try:
        World(seed, **more).run()
    except (Broken, Exception) as error:
        print(f"seed {seed}: {str(error).splitlines()[0][:110]}")
        sys.exit(1)
"""


def fate(folder: Path, histories: int) -> str:
    """How the mutant in this folder dies; "" when it lives."""
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    stories = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/actors"]
    simulated = subprocess.run(
        [sys.executable, "-c", RUN, str(histories)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if simulated.returncode:
        return (simulated.stdout or simulated.stderr).strip().splitlines()[-1]
    told = subprocess.run(stories, cwd=folder, env=env, capture_output=True, text=True, check=False)
    failed = [line for line in told.stdout.splitlines() if line.startswith("FAILED")]
    return f"story: {failed[0].removeprefix('FAILED ')[:90]}" if told.returncode and failed else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=500)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    survivors = 0
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / "copy"
        for part in ("vllama", "tests", "tools", "design"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        for name, old, new, forgets in MUTANTS:
            if options.only not in forgets:
                continue
            path, original = folder / CORE / name, (ROOT / CORE / name).read_text(encoding="utf-8")
            if original.count(old) != 1:
                print(f"?? {forgets}: its line is not (once) in {name} any more")
                survivors += 1
                continue
            path.write_text(original.replace(old, new), encoding="utf-8")
            death = fate(folder, options.histories)
            path.write_text(original, encoding="utf-8")
            survivors += not death
            print(f"| {forgets} | {death or 'SURVIVES'} |", flush=True)
    print(f"{survivors} of {len(MUTANTS)} survive")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
