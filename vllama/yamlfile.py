"""A YAML file as plain data that remembers its lines, so that an error can name file, line and key. A leaf."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from yaml.reader import ReaderError

from vllama.errors import ConfigError

if TYPE_CHECKING:  # the command line reads a file without it
    from pydantic import ValidationError

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
    try:
        loader = yaml.SafeLoader(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        words = f"{path}:{line}: not valid YAML: the character U+{error.character:04X} may not stand in it"
        raise ConfigError(words) from error
    try:
        node = loader.get_single_node()
        if node is None:
            return Document(path)
        if not isinstance(node, yaml.MappingNode):
            line = node.start_mark.line + 1
            raise ConfigError(f"{path}:{line}: expected `key: value` lines, for example {example!r}")
        if knot := _knot(node, set(), set()):
            line = knot.start_mark.line + 1
            raise ConfigError(f"{path}:{line}: not valid YAML: what this anchor (`&...`) names holds itself")
        lines = dict(_lines(path, node, ()))
        tree = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not valid YAML: it is nested too deeply") from error
    except (
        AttributeError,
        LookupError,
    ) as error:  # what PyYAML's constructors raise at `!!bool x`, `!!timestamp x`
        raise ConfigError(
            f"{path}: not valid YAML: a value is not of the kind that its tag (`!!...`) says"
        ) from error
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


def _knot(node: yaml.Node, above: set[yaml.Node], done: set[yaml.Node]) -> yaml.Node | None:
    """A node that holds itself by an alias, which no setting can and YAML allows; each node is looked at once."""
    if node in above:
        return node
    if node in done or not isinstance(node, yaml.CollectionNode):
        return None
    above.add(node)
    pairs = node.value if isinstance(node, yaml.MappingNode) else [(value,) for value in node.value]
    found = next(filter(None, (_knot(value, above, done) for pair in pairs for value in pair)), None)
    above.remove(node)
    done.add(node)
    return found


# Pydantic's words for those who do not know Python.
_WORDS = {
    "tuple_type": "must be a list, for example [0, 1]",
    "dict_type": "must be a mapping (`key: value` lines, indented)",
    "bool_type": "must be true or false",
    "string_type": "must be text; quote it",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
}


def findings(error: "ValidationError") -> Iterator[tuple[tuple[str | int, ...], str]]:
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
            said = _WORDS.get(item["type"])
            given = str(item["msg"]).removeprefix("Value error, ")
            words = said.format_map(item.get("ctx", {})) if said else given
            secret = str(place[0]).endswith("_key")
            yield place, f"{words} (got {item['input']!r})" if _short(item["input"]) and not secret else words


def _short(value: object) -> bool:
    return isinstance(value, str | int | float | bool | None) and len(repr(value)) < 80
