"""A conversation: what was said, and how to ask. Saved as a file that people can read, in one step."""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VERSION = 1
ROLES = ("user", "assistant")


class ConversationError(Exception):
    """It cannot be saved or loaded; the message says why."""


@dataclass
class Conversation:
    """With one model. `messages` has no system message: that is `system`, which may change under way."""

    model: str
    system: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    think: bool | None = None
    messages: list[dict[str, str]] = field(default_factory=list)

    def body(self, question: str) -> dict[str, Any]:
        """The request that asks this next."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [*messages, *self.messages, {"role": "user", "content": question}],
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.parameters,
        }
        if self.think is not None:  # how the templates of thinking models are told
            body["chat_template_kwargs"] = {"enable_thinking": self.think, "thinking": self.think}
        return body

    def heard(self, question: str, answer: str) -> None:
        """What was asked and answered is part of it from now on; an answer that was cut off as far as it came."""
        self.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    def save(self, path: Path) -> None:
        """Write it in one step, for its owner alone. Raises ConversationError."""
        tree = {
            "v": VERSION,
            "model": self.model,
            "system": self.system,
            "parameters": self.parameters,
            "think": self.think,
            "messages": self.messages,
        }
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise ConversationError(f"{path} cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> "Conversation":
        """Raises ConversationError."""
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            if tree["v"] != VERSION:
                raise ValueError(f"version {tree['v']}")
            messages = [
                {"role": str(each["role"]), "content": str(each["content"])} for each in tree["messages"]
            ]
            if any(each["role"] not in ROLES for each in messages):
                raise ValueError("a role")
            return cls(
                str(tree["model"]), str(tree["system"]), dict(tree["parameters"]), tree["think"], messages
            )
        except OSError as error:
            raise ConversationError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConversationError(f"{path} is not a conversation that /save has written") from error


def place(name: str, folder: Path) -> Path:
    """Where a conversation of this name lies: a path if it looks like one, else under the folder. Raises ConversationError."""
    if name.endswith(".json") or name.startswith((".", "~", "/")):
        return Path(name).expanduser()
    if not re.fullmatch(r"[\w][\w.-]*", name):
        raise ConversationError(f"{name!r} is no name for a conversation: take letters, digits, . - and _")
    return folder / f"{name}.json"
