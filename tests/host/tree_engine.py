"""A stand-in for an engine: a process with a child and a grandchild, a socket file and shared memory of its own.

It prints "up" once all of that exists, and ends with 0 on SIGTERM, leaving its descendants behind, as vLLM may.
"""

import os
import signal
import socket
import subprocess
import sys
import time

if __name__ == "__main__":
    nested = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {'import time; time.sleep(600)'!r}]);"
    subprocess.Popen([sys.executable, "-c", nested + "time.sleep(600)"])
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(os.path.join(os.environ["TMPDIR"], "engine.sock"))
    with open(f"/dev/shm/{os.environ['VLLAMA_SHM_MARK']}.stand-in", "w") as file:
        file.write("x")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.write(1, " ".join(["up", *sys.argv[1:], os.environ.get("STAND_IN", "no")]).encode() + b"\n")
    while True:
        time.sleep(600)
