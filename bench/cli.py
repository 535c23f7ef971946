"""How soon the command line and the server are there, and what the server holds; five in turn, medians."""

import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, Vllama, median, publish, server, timed, wait_zygote
from serving import pss_bytes

TURNS = 5


def main() -> None:
    ready: list[float] = []
    pss: list[float] = []
    ps: list[float] = []
    with tempfile.TemporaryDirectory() as empty:
        for _ in range(TURNS):
            vllama = Vllama(ROOT / ".demo" / "bench-cli", Path(empty))
            vllama.log.unlink(missing_ok=True)
            try:
                with timed(ready):
                    vllama.start()
                wait_zygote(vllama, ("ready", "off"))
                pss.append(pss_bytes(vllama.pid) / 1e6)
                vllama.end()
            finally:
                vllama.kill()
        with server("cli", Path(empty)) as vllama:
            wait_zygote(vllama, ("ready", "off"))
            command = [sys.executable, "-m", "vllama.cli.main", "ps"]
            for _ in range(TURNS):
                with timed(ps):
                    subprocess.run(
                        command, env=vllama.environ, check=True, stdout=subprocess.DEVNULL, timeout=60
                    )
    publish(
        "cli",
        {"ps s": ps, "serve s": ready, "pss MB": pss},
        {
            "ps_s_median": median(ps),
            "serve_ready_s_median": median(ready),
            "serve_pss_mb_median": median(pss, 1),
        },
    )


if __name__ == "__main__":
    main()
