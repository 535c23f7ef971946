"""A stand-in for vllama, to be killed: it opens processes, launches engines, says what it has, and lives on.

usage: stand_in_server.py FOLDER PRELOAD ORDER...   (an ORDER is JSON: Order's fields)
Each line on stdout is JSON: {"mark", "guard"} once open, {"launched", "pid", "mode", "pids"} for each order, and events.
It ignores what a terminal sends, as vllama does in its own way.
"""

import asyncio
import dataclasses
import json
import signal
import sys
from pathlib import Path

from vllama.host.processes import Order, Processes


def say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def main() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(signum, lambda: None)
    folder = Path(sys.argv[1])
    processes = Processes(
        lambda event: say(**dataclasses.asdict(event)),
        preload=sys.argv[2] == "preload",
        zygote_log=folder / "zygote.log",
    )
    await processes.open()
    say(mark=processes._folder.mark, guard=processes.helper_pids()[0])
    for text in sys.argv[3:]:
        order = Order(**json.loads(text))
        started = await processes.launch(order)
        pids = await processes.tree(order.launch_id)
        say(launched=order.launch_id, pid=started.pid, mode=started.mode, reason=started.reason, pids=pids)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
