"""Model names for the shell. Says nothing when there is no server: a completion must never fail."""

from vllama.cli.client import AnswerError, Client, ServerDownError


def model_names(incomplete: str) -> list[str]:
    """Every name of a model that begins with what is typed: ids, aliases, adapters."""
    try:
        cards = Client().get("/v1/models").get("data", [])
    except (ServerDownError, AnswerError, ValueError):
        return []
    names = [name for card in cards for name in (str(card["id"]), *card.get("aliases", ()))]
    return [name for name in names if name.casefold().startswith(incomplete.casefold())]
