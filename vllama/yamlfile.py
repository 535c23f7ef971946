"""A YAML file as plain data that remembers its lines, so that an error can name file, line and key. A leaf."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from vllama.errors import ConfigError

Place = tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """One mapping of a file: its data, and the line of each key by its path of keys."""

    path: Path
    tree: dict[str, Any] = field(default_factory=dict)
    lines: Mapping[Place, int] = field(default_factory=dict)

    def at(self, place: tuple[str | int, ...]) -> str:
        """`FILE:LINE`, of the deepest key on the way to `place` that the file has."""
        keys = tuple(map(str, place))
        found = (self.lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.lines)
        line = next(found, None)
        return f"{self.path}:{line}" if line else str(self.path)


def read(path: Path, example: str) -> Document:
    """The file's mapping; an absent or empty file is an empty one. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Document(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse(path, text, example)


def parse(path: Path, text: str, example: str) -> Document:
    """The same of a text that is, or is to be, in the file. Raises ConfigError."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Document(path)
        if not isinstance(node, yaml.MappingNode):
            line = node.start_mark.line + 1
            raise ConfigError(f"{path}:{line}: expected `key: value` lines, for example {example!r}")
        lines = dict(_lines(path, node, ()))
        tree = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()
    return Document(path, {str(key): value for key, value in tree.items()}, lines)


def _lines(path: Path, node: yaml.MappingNode, above: Place) -> Iterator[tuple[Place, int]]:
    """The line of each key. A key that stands twice is refused: YAML would silently keep the last."""
    seen: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in seen and name != "<<":
            raise ConfigError(f"{path}:{line}: key {name}: stands here and in line {seen[name]}; remove one")
        seen[name] = line
        yield (*above, name), line
        if isinstance(value, yaml.MappingNode) and len(above) < 8:
            yield from _lines(path, value, (*above, name))


# Pydantic's words for those who do not know Python.
_WORDS = {
    "tuple_type": "must be a list, for example [0, 1]",
    "dict_type": "must be a mapping (`key: value` lines, indented)",
    "bool_type": "must be true or false",
    "string_type": "must be text; quote it",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
}


def findings(error: ValidationError) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Pydantic's findings as (place, words), each place once."""
    seen: set[tuple[str | int, ...]] = set()
    for item in error.errors(include_url=False):
        place = tuple(item["loc"])
        if place in seen:
            continue
        seen.add(place)
        if item["type"] == "extra_forbidden":
            yield place, "is unknown"
        else:
            words = _WORDS.get(item["type"], str(item["msg"]).removeprefix("Value error, "))
            secret = str(place[0]).endswith("_key")
            yield place, f"{words} (got {item['input']!r})" if _short(item["input"]) and not secret else words


def _short(value: object) -> bool:
    return isinstance(value, str | int | float | bool | None) and len(repr(value)) < 80
