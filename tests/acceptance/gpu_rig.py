"""A server on fake GPUs, its engines fake; what they hold is what the real NVML binding reads."""

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving import Vllama, wait_until

from tests.api.caches import make_cache
from tests.api.rig import Rig
from tests.fakes.fake_gpu import GIB, FakeGpus

A, B, C = "gpu/a", "gpu/b", "gpu/c"
MIB = 2**20


class GpuRig(Rig):
    """As Rig, and the GPUs below it."""

    def __init__(self, server: Vllama, faults: Path, gpus: FakeGpus) -> None:
        super().__init__(server, faults)
        self.gpus = gpus

    def devices(self) -> list[dict[str, Any]]:
        return self.http.get("/control/info").raise_for_status().json()["devices"]

    def notes(self) -> list[str]:
        return self.http.get("/control/info").raise_for_status().json()["host"]["notes"]

    def argv(self, model: str) -> dict[str, str]:
        """The flags that the engine of this model says it was started with, the latest."""
        text = Path(self.view(model)["log"]).read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if "non-default args" in line]
        return json.loads(lines[-1].partition("args: ")[2].replace("'", '"'))

    def events(self, kind: str, actor: str = "") -> list[dict[str, Any]]:
        found = [event for event in self.server.events() if event["kind"] == kind]
        return [event for event in found if not actor or event["actor"] == actor]

    def ok(self, *models: str) -> None:
        for model in models:
            answer = self.chat(model)
            assert answer.status_code == 200, f"{answer.text}{self.server.log_tail()}"

    def asleep(self, *models: str) -> None:
        for model in models:
            answer = self.command("sleep", model, level=2)
            assert answer.json()["phase"] == "asleep", answer.text

    @contextmanager
    def asking(self, model: str) -> Iterator[list[int]]:
        """A chat on its way while the block runs; its status once it is over."""
        answers: list[int] = []
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(lambda: self.chat(model).status_code)
            try:
                yield answers
            except BaseException:
                self.gpus.set("hold", None)
                raise
            answers.append(asked.result())

    def soon(self, happened: Callable[[], bool]) -> None:
        assert wait_until(happened, 30), self.server.log_tail()


def models_of(hub: Path, sizes: Mapping[str, int], architecture: str = "Qwen3ForCausalLM") -> Path:
    """A cache of models whose weights have these sizes, in sparse files."""
    make_cache(hub, dict.fromkeys(sizes, architecture))
    for name, size in sizes.items():
        (path,) = (hub / ("models--" + name.replace("/", "--"))).glob("snapshots/*/model.safetensors")
        tensor = {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}
        header = json.dumps({"w": tensor}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        with path.open("r+b") as file:
            file.truncate(8 + len(header) + size)
    return hub


def one_at_a_time(gpus: FakeGpus) -> int:
    """Law 9, read in the fakes' own log: how many transitions there were, each ended before the next began on its GPU.
    The dead end nothing: their transition ended with them."""
    open_on: dict[str, tuple[str, str]] = {}
    count = 0
    for edge, what, gpu, pid in gpus.log():
        if edge == "begin":
            before = open_on.get(gpu)
            assert before is None or not Path(f"/proc/{before[1]}").exists(), (
                f"{before} and {what} {pid} on {gpu}"
            )
            open_on[gpu] = (what, pid)
            count += 1
        else:
            assert open_on.pop(gpu) == (what, pid)
    return count


def write_models(server_folder: Path, text: str) -> None:
    (server_folder / "config").mkdir(parents=True, exist_ok=True)
    (server_folder / "config" / "models.yaml").write_text(text)


def rigs(make: Callable[..., Vllama], tmp_path: Path, driver: Path) -> Iterator[Callable[..., GpuRig]]:
    """A factory: `make(total, ..., models={name: weights}, yaml="", **settings)`."""
    made: list[GpuRig] = []

    def rig(*totals: int, models: dict[str, int] | None = None, yaml: str = "", **settings: str) -> GpuRig:
        gpus = FakeGpus(tmp_path / "gpus")
        for total in totals:
            gpus.add(total)
        cache = models_of(tmp_path / "hub", models or {A: GIB, B: GIB, C: GIB})
        write_models(tmp_path / "vllama-0", yaml)
        faults = tmp_path / "faults"
        env = {
            "FAKE_VLLM_FAULTS_FILE": str(faults),
            "VLLAMA_BACKOFF_S": "0",
            "VLLAMA_BUSY_GRACE_S": "0.2",
            "VLLAMA_WAIT_TIMEOUT_S": "30",
        }
        server = make(cache, fake=True, env=env | gpus.env(driver) | settings)
        made.append(GpuRig(server, faults, gpus))
        return made[-1]

    yield rig
    for each in made:
        each.close()
