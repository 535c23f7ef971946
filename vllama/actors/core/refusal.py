"""Why somebody got no engine, as data; the words are made in refusals.py."""

from vllama.actors.core.facts import fact


@fact
class Refusal:
    """`code` names the class in errors.py, `message` is for the person who reads it."""

    code: str
    message: str
    retry_after_s: float | None = None
