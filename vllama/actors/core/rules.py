"""The policies by their names in the configuration."""

from vllama.actors.core.cost import Cost
from vllama.actors.core.policy import Lru, Rule

RULES: dict[str, Rule] = {"lru": Lru(), "cost": Cost()}
