"""The Dockerfile, the compose file and the systemd unit: their syntax, and that they agree with each other and with vllama.

No image is built here: that takes a daemon and gigabytes of an index that tests may not have.
"""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from vllama.cli.main import app
from vllama.config import VllamaConfig, load_config

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "packaging" / "vllama.service"
INSTRUCTIONS = {
    *(
        "ARG",
        "FROM",
        "WORKDIR",
        "COPY",
        "ADD",
        "RUN",
        "USER",
        "ENV",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
    ),
    *("ENTRYPOINT", "CMD", "LABEL", "SHELL"),
}
DEFAULTS = VllamaConfig()
COMMANDS = {
    command.name or command.callback.__name__ for command in app.registered_commands if command.callback
}


# What comes with a package that pyproject.toml names: imported as part of it.
ALONG = {
    "starlette": "fastapi",
    "annotated-types": "pydantic",
    "torch": "vllm",
    "transformers": "vllm",
    "tokenizers": "vllm",
}


def test_what_the_tools_import_is_named_in_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    named = {re.split(r"[^\w.-]", line)[0].lower() for line in lines}
    files = sorted((ROOT / "tools").glob("*.py"))
    ours = {"vllama", "tests", "bench", *(file.stem for file in files)}
    owners = importlib.metadata.packages_distributions()
    strangers = {
        f"{file.name}: {package}"
        for file in files
        for package in _imported(file) - ours - sys.stdlib_module_names
        if not {ALONG.get(owner.lower(), owner.lower()) for owner in owners.get(package, ())} & named
    }
    assert strangers == set()


def _imported(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    parts = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in (*plain, *parts)}


def dockerfile() -> list[tuple[str, str]]:
    """Instructions and their arguments, continued lines joined, comments left out."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            found.append((word, " ".join(rest.split())))
    return found


def image_env() -> dict[str, str]:
    pairs = (pair.partition("=") for word, rest in dockerfile() if word == "ENV" for pair in rest.split())
    return {name: value for name, _, value in pairs}


def compose() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return tree


def unit() -> dict[str, dict[str, list[str]]]:
    sections: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            sections[section][key].append(value)
    return sections


def settings_exist(names: set[str]) -> None:
    for name in names:
        if name.startswith("VLLAMA_"):
            assert name.removeprefix("VLLAMA_").lower() in VllamaConfig.model_fields, name


def test_the_dockerfile_is_one() -> None:
    steps = dockerfile()
    assert {word for word, _ in steps} <= INSTRUCTIONS
    assert steps[0][0] == "ARG"  # PYTHON, before the first FROM
    stages = [rest for word, rest in steps if word == "FROM"]
    named = {stage.rpartition(" AS ")[2] for stage in stages if " AS " in stage}
    for _, rest in ((w, r) for w, r in steps if w == "COPY"):
        *sources, _target = rest.split()
        if sources[0].startswith("--from="):
            assert sources[0].removeprefix("--from=") in named
        else:
            ignored = (ROOT / ".dockerignore").read_text().splitlines()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert f"!{source.removeprefix('./')}" in ignored  # else the context has it not
    if shell := shutil.which("sh"):
        for word, rest in steps:
            if word == "RUN":
                subprocess.run([shell, "-n", "-c", rest], check=True, timeout=10)


def test_the_images_settings_are_settings_and_its_port_is_the_one_that_it_exposes() -> None:
    env, steps = image_env(), dockerfile()
    settings_exist(set(env))
    load_config(env=env)
    exposed = [rest for word, rest in steps if word == "EXPOSE"]
    assert exposed == [env["VLLAMA_PORT"]] == [str(DEFAULTS.port)]
    check = next(rest for word, rest in steps if word == "HEALTHCHECK")
    assert f"http://127.0.0.1:{env['VLLAMA_PORT']}/health" in check
    volumes = next(rest for word, rest in steps if word == "VOLUME")
    for name in ("VLLAMA_CONFIG_DIR", "VLLAMA_TRANSFORMERS_CACHE"):
        assert f'"{env[name]}"' in volumes
    assert ("ENTRYPOINT", '["vllama"]') in steps
    (command,) = [rest for word, rest in steps if word == "CMD"]
    assert yaml.safe_load(command)[0] in COMMANDS
    extras = {
        rest.removeprefix("EXTRA=") for word, rest in steps if word == "ARG" and rest.startswith("EXTRA=")
    }
    assert extras == {"vllm"}


def test_the_compose_file_fits_the_image() -> None:
    tree, env = compose(), image_env()
    assert set(tree["services"]) == {"gpu", "cpu"}
    for name, service in tree["services"].items():
        assert service["ipc"] == "host"
        assert service["profiles"] == [name]
        settings_exist(set(service["environment"]))
        host, published, inner = service["ports"][0].split(":")
        assert (host, published, inner) == ("127.0.0.1", env["VLLAMA_PORT"], env["VLLAMA_PORT"])
        targets = {volume.rpartition(":")[2] for volume in service["volumes"]}
        assert targets == {env["VLLAMA_CONFIG_DIR"], env["VLLAMA_TRANSFORMERS_CACHE"]}
        named = {volume.partition(":")[0] for volume in service["volumes"]} - {"${HF_HUB_CACHE"}
        assert named == set(tree["volumes"])
        assert service["environment"]["VLLAMA_CONTROL_HOSTS"] in service["networks"]["default"]["aliases"]
        arguments = service["build"]["args"]
        declared = {rest.partition("=")[0] for word, rest in dockerfile() if word == "ARG"}
        assert set(arguments) <= declared
        assert arguments["EXTRA"] in ("vllm", "cpu")
        assert (ROOT / service["build"]["context"] / "Dockerfile").exists()
        grace_s = int(service["stop_grace_period"].removesuffix("s"))
        assert grace_s > DEFAULTS.shutdown_timeout_s + DEFAULTS.stop_grace_s + 5
    assert tree["services"]["gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"
    if (
        shutil.which("docker")
        and not subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False, timeout=30
        ).returncode
    ):
        done = subprocess.run(
            ["docker", "compose", "--profile", "*", "config", "--quiet"],
            cwd=ROOT,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "VLLAMA_API_KEY": "x", "HOME": "/root"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


def test_the_unit_ends_vllama_as_vllama_wants_to_be_ended() -> None:
    service = unit()["Service"]
    assert service["KillMode"] == ["mixed"]
    assert float(service["TimeoutStopSec"][0]) > DEFAULTS.shutdown_timeout_s + DEFAULTS.stop_grace_s + 5
    assert service["OOMPolicy"] == ["continue"]
    binary, command, *options = service["ExecStart"][0].split()
    assert Path(binary).name == "vllama"
    assert command in COMMANDS
    assert options == []
    env = dict(pair.split("=", 1) for pair in service["Environment"])
    settings_exist(set(env))
    state = f"/var/lib/{service['StateDirectory'][0]}"
    assert all(value.startswith(state) for value in env.values())
    assert service["WorkingDirectory"] == [state]
    assert service["User"] == service["Group"] == ["vllama"]


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed: only our own look at the unit was taken")
    (binary, *_) = unit()["Service"]["ExecStart"][0].split()
    ours = Path(sys.executable).with_name("vllama")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text(encoding="utf-8").replace(binary, str(ours)), encoding="utf-8")
    done = subprocess.run(
        [analyze, "verify", str(copy)], capture_output=True, text=True, check=False, timeout=60
    )
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert complaints == []


def test_pages_say_the_same_of_installing() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    index = next(rest for word, rest in dockerfile() if rest.startswith("TORCH_INDEX=")).partition("=")[2]
    assert f"--extra-index-url {index}" in page
    assert re.search(r"--profile gpu", page)
    for path in ("/opt/vllama/bin", "/etc/vllama/vllama.env", "/var/lib/vllama"):
        assert path in page
        assert path in UNIT.read_text(encoding="utf-8")
