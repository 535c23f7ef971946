"""Tiny models with random weights, one of each kind that engines serve, in the layout of a Hugging Face cache.

usage: tiny.py HUB_FOLDER   (a model that is there already is left alone)
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_layout import model_folder, publish, workshop

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHAT = "tiny/qwen3"
EMBEDDING = "tiny/bge-m3"
RERANK = "tiny/qwen3-reranker"
WORDS = "the a of to and is in it you that he was for on are with as his they be at one have this from by cat dog sat mat"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3_SHAPE: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 512, "tie_word_embeddings": False,
    "initializer_range": 0.3,  # so large that different prompts get different answers
}  # fmt: skip


def write_tokenizer(files: Path, special: list[str], **names: str) -> int:
    """A byte-level BPE tokenizer without merges but those of a few words. Returns its vocabulary's size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([WORDS], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names)
    fast.save_pretrained(files)
    return len(fast)


def qwen3_tokenizer(files: Path) -> tuple[int, int, int]:
    """The size of the vocabulary, and the ids of padding and of the end."""
    size = write_tokenizer(
        files,
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    (files / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return size, 0, 2


def chat(files: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    size, pad, end = qwen3_tokenizer(files)
    config = Qwen3Config(vocab_size=size, pad_token_id=pad, eos_token_id=end, bos_token_id=end, **QWEN3_SHAPE)
    save(Qwen3ForCausalLM(config), files)


def rerank(files: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    size, pad, end = qwen3_tokenizer(files)
    config = Qwen3Config(vocab_size=size, pad_token_id=pad, eos_token_id=end, num_labels=1, **QWEN3_SHAPE)
    save(Qwen3ForSequenceClassification(config), files)


def embedding(files: Path) -> None:
    """bge-m3's architecture. Its position table counts from the padding's id, hence the two more than 512."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    size = write_tokenizer(
        files, ["<s>", "<pad>", "</s>", "<unk>"], bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>",
    )  # fmt: skip
    config = XLMRobertaConfig(
        vocab_size=size, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    save(XLMRobertaModel(config), files)
    path = files / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"position_embedding_type": "absolute"}, indent=2)
    )


def save(model: "PreTrainedModel", files: Path) -> None:
    """In bfloat16, as the models that people serve are."""
    import torch

    model.to(torch.bfloat16).save_pretrained(files)


RECIPES: dict[str, Callable[[Path], None]] = {CHAT: chat, EMBEDDING: embedding, RERANK: rerank}


def make(hub: Path) -> None:
    """All three are in the cache afterwards, the same weights on every machine."""
    if all(model_folder(hub, model).is_dir() for model in RECIPES):
        return
    import torch
    from transformers import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with workshop(hub) as work:
        for model, recipe in RECIPES.items():
            if model_folder(hub, model).is_dir():
                continue
            torch.manual_seed(0)
            files = Path(tempfile.mkdtemp(dir=work))
            recipe(files)
            publish(hub, model, files, work)


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
