"""Where nginx and LiteLLM come from: this machine, or else a folder of .demo that is filled when they are first wanted."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT

DEMO = ROOT / ".demo"
LITELLM = DEMO / "litellm"
LITELLM_PINS = ROOT / "bench" / "requirements" / "litellm.txt"
NGINX_PACKAGES = ("nginx", "nginx-light")  # Debian has had the program in one or the other


def nginx_command() -> str:
    """nginx on PATH or in /usr/sbin; else the distribution's package, unpacked without being installed."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", str(DEMO / "nginx" / "usr" / "sbin")])
    if found := shutil.which("nginx", path=places):
        return found
    said = ""
    for package in NGINX_PACKAGES if shutil.which("apt-get") and shutil.which("dpkg-deb") else ():
        print(f"bench: there is no nginx here; fetching the package {package}")
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                ["apt-get", "download", package], cwd=folder, capture_output=True, text=True, check=False
            )
            said += done.stderr
            for file in Path(folder).glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", str(file), str(DEMO / "nginx")], check=True)
        if found := shutil.which("nginx", path=places):
            return found
    raise SystemExit(
        "bench: nginx is what the others are compared with, and it is not here: install it (Debian: apt-get install nginx), "
        f"or leave it out with --only.\n{said}"
    )


def litellm_command() -> str:
    """LiteLLM's proxy in an environment of its own, at the versions of bench/requirements/litellm.txt."""
    stamp = LITELLM / "pins"
    pins = hashlib.sha256(LITELLM_PINS.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text(encoding="ascii") != pins:
        print(f"bench: installing LiteLLM into {LITELLM}; this takes a minute or two")
        shutil.rmtree(LITELLM, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(LITELLM)], check=True)
        pip = [str(LITELLM / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
        done = subprocess.run(
            [*pip, "install", "--quiet", "-r", str(LITELLM_PINS)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(
                f"bench: LiteLLM cannot be installed (leave it out with --only):\n{done.stderr[-2000:]}"
            )
        stamp.write_text(pins, encoding="ascii")
    return str(LITELLM / "bin" / "litellm")
