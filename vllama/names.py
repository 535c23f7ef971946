"""Which model a name means: its id, an alias, an adapter's name, or the part after the slash where that is unique; in any case of
letters where no other name is written so.

A table is built when the cache or models.yaml has changed, and only looked up on the request path.
"""

import difflib
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vllama.config import ModelConfig
from vllama.errors import CITED_CHARS_MAX, ModelUnknown, cited

NEAREST_MAX = 3


@dataclass(frozen=True, slots=True)
class Route:
    """`model` is the canonical id, which names the actor; `served` is what the engine knows the request's model as."""

    model: str
    served: str


class Names:
    """One state of the cache and of models.yaml. Entries of models that the cache has not name nothing."""

    def __init__(self, ids: Iterable[str] = (), configs: Mapping[str, ModelConfig] | None = None) -> None:
        self.ids = tuple(sorted(ids))
        self._routes = {model: Route(model, model) for model in self.ids}
        for model, config in (configs or {}).items():
            if model not in self._routes:
                continue
            for alias in config.aliases:
                self._routes.setdefault(alias, Route(model, model))
            for adapter in config.lora:
                self._routes.setdefault(adapter, Route(model, adapter))
        entries = (configs or {}).items()
        self._absent = {
            model: config.revision
            for model, config in entries
            if config.revision and model not in self._routes
        }
        self._folded: dict[str, list[Route]] = {}  # clients of other servers write names in small letters
        for name, route in self._routes.items():
            self._folded.setdefault(name.casefold(), []).append(route)
        self._short: dict[str, list[str]] = {}
        for model in self.ids:
            self._short.setdefault(_short(model), []).append(model)

    def find(self, name: str) -> Route | None:
        """None for a name that means no model, or more than one."""
        if (route := self._routes.get(name)) is not None:
            return route
        folded = name.casefold()
        meant = self._short.get(folded, ())
        if len(meant) == 1:
            return Route(meant[0], meant[0])
        routes = self._folded.get(folded, ())
        return routes[0] if len(routes) == 1 else None

    def unknown(self, name: str, where: str) -> ModelUnknown:
        """The error for a name that `find` does not know: what it might mean, or what to do."""
        meant = self._short.get(name.casefold(), ())
        if len(meant) > 1:
            return ModelUnknown(f"{cited(name)!r} is ambiguous: it may be {' or '.join(meant)}", model=name)
        if (revision := self._absent.get(name)) is not None:
            bring = f"vllama pull {shlex.quote(name)} --revision {shlex.quote(revision)}"
            return ModelUnknown(
                f"{name} is served at its revision {revision}, as models.yaml says, which is not (whole) in {where}; "
                f"`{bring}` brings it there",
                model=name,
            )
        if len(name) > CITED_CHARS_MAX:  # near to none, and none of the hub's
            return ModelUnknown(
                f"no complete model {cited(name)!r} in {where}; GET /v1/models lists those that can be used",
                model=cited(name),
            )
        near = self._nearest(name)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        bring = f"vllama pull {shlex.quote(name)}"
        return ModelUnknown(
            f"no complete model {name!r} in {where}; {hint}`{bring}` brings a model of Hugging Face's hub there",
            model=name,
        )

    def _nearest(self, name: str) -> list[str]:
        """The nearest names, by the whole and by the part after the slash, whatever the case."""
        wanted = name.casefold()
        found: dict[str, float] = {}
        for known in self._routes:
            whole = difflib.SequenceMatcher(None, wanted, known.casefold()).ratio()
            part = difflib.SequenceMatcher(None, _short(wanted), _short(known)).ratio()
            found[known] = max(whole, part)
        best = sorted((known for known, ratio in found.items() if ratio >= 0.5), key=lambda k: -found[k])
        return best[:NEAREST_MAX]


def _short(model: str) -> str:
    return model.rpartition("/")[2].casefold()
