"""Debian's Chromium, for the tests of the page in the browser: found, or installed where that can be done.

python tools/chromium.py     installs it when it is missing and we are root; says why not, else
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Nothing of its own: no first-run page, no updates, no sync, no other protocol than the test's.
ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_S = 600


def find() -> str | None:
    """The path of an installed Chromium."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def why_not() -> str:
    """What stands in the way of installing it; "" when nothing does."""
    if shutil.which("apt-get") is None:
        return "there is no apt-get here: install Chromium by hand"
    return "" if os.geteuid() == 0 else "not root: apt-get install chromium"


def install() -> str:
    """By apt-get; returns its path. Raises CalledProcessError, TimeoutExpired."""
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", "chromium"]):
        subprocess.run(
            ["apt-get", *command], env=env, check=True, timeout=TIMEOUT_S, stdout=subprocess.DEVNULL
        )
    path = find()
    assert path is not None
    return path


def main() -> int:
    """Never fails `make test`: without Chromium the tests of the page are skipped, and say so."""
    if find() is not None:
        return 0
    reason = why_not()
    if not reason:
        print("installing Chromium, for the tests of the page in the browser", flush=True)
        try:
            install()
        except (subprocess.SubprocessError, OSError) as error:
            reason = f"apt-get failed: {error}"
    if reason:
        print(f"no Chromium, so the tests of the page in the browser are skipped: {reason}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
