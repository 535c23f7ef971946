"""The proof that nothing is left can fail: orphans and zombies of a server are found."""

import os
import signal
import subprocess
import sys

import serving

ORPHAN = "import os, sys, time\nif os.fork() == 0:\n    print(os.getpid(), flush=True); time.sleep(60)\n"


def test_orphan_is_found_and_killed(tmp_path):
    server = serving.Vllama(tmp_path, tmp_path)
    done = subprocess.Popen(
        [sys.executable, "-c", ORPHAN], env=server.environ, stdout=subprocess.PIPE, text=True
    )
    with done:
        assert done.stdout is not None
        pid = int(done.stdout.readline())
        done.wait()
        assert [line.split()[0] for line in server.left()] == [str(pid)]
        server.kill()
    assert server.wait_nothing_left(10) == []


def test_zombie_that_was_seen_below_the_server_is_found(tmp_path):
    """A zombie's environment is gone; what was seen while it lived is not forgotten."""
    server = serving.Vllama(tmp_path, tmp_path)
    script = "import os, signal\nif os.fork() == 0:\n    signal.pause()\nsignal.pause()\n"
    server.process = subprocess.Popen([sys.executable, "-c", script], env=server.environ)
    try:
        assert serving.wait_until(lambda: len(server.look()) == 1, 10)
        (child,) = server.look()
        os.kill(child.pid, signal.SIGKILL)
        assert serving.wait_until(lambda: any("state Z" in line for line in server.left()), 10)
    finally:
        server.process.kill()
        server.process.wait()


def test_nothing_of_the_callers_settings_reaches_the_server(tmp_path, monkeypatch):
    monkeypatch.setenv("VLLAMA_PORT", "1")
    server = serving.Vllama(tmp_path, tmp_path, memory_limit="1GiB")
    assert "VLLAMA_PORT" not in server.environ
    assert server.environ["VLLAMA_MEMORY_LIMIT"] == "1GiB"
