"""What `info` shows: settings, host, books, and what is wrong with files."""

from typing import TYPE_CHECKING, Any

from vllama.actors.translate import describe
from vllama.host.host import HostInfo

if TYPE_CHECKING:
    from vllama.actors.system import System


def about(system: "System", host: HostInfo) -> dict[str, Any]:
    """From memory alone."""
    models = system.catalog.models
    return describe(system.config, host) | {
        "devices": system.devices(),
        "ram": system.ram(),
        "models": len(models),
        "unknown_variables": list(system.config.strangers),
        "broken_models": [f"{files.id}: {files.problem}" for files in models if files.problem],
        "models_file": {"path": str(system.config.models_file), "problem": system.problem},
        "workers": system.bank.view(),
        "seq": system.journal.seq,
        "stopping": system.stopping,
    }
