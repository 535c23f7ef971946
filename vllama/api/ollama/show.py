"""POST /api/show: what a model is and can do, read from its files and its entry."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllama.actors import System, chat_template
from vllama.api.ollama.cards import details, modified, parameters
from vllama.api.ollama.names import known
from vllama.api.ollama.request import body_of

BODY_BYTES_MAX = 2**20
_SHAPE = {
    "embedding_length": "hidden_size", "block_count": "num_hidden_layers", "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads", "vocab_size": "vocab_size",
}  # fmt: skip


async def show(request: Request) -> Response:
    """Its template is the chat template, in Jinja; its modelfile says where it is."""
    system: System = request.app.state.system
    tree = await body_of(request, BODY_BYTES_MAX)
    await system.models()
    route = await known(system, tree.get("model") or tree.get("name"))
    model = route.model
    files, entry = system.catalog.files[model], system.catalog.of(model)
    template = await chat_template(files)
    modelfile = f"# Modelfile of vllama: settings of a model are in models.yaml\nFROM {files.path}\n"
    return JSONResponse({
        "modelfile": modelfile,
        "parameters": f"num_ctx {entry.max_model_len}" if entry.max_model_len else "",
        "template": template,
        "details": details(system, model, parent=model if route.served != model else ""),
        "model_info": _info(system, model),
        "capabilities": _capabilities(system, model),
        "modified_at": modified(system, model),
    })  # fmt: skip


def _info(system: System, model: str) -> dict[str, Any]:
    files, entry = system.catalog.files[model], system.catalog.of(model)
    family = str(files.config.get("model_type") or "unknown")
    inner = files.config.get("text_config")
    shape = inner if isinstance(inner, dict) else files.config
    info: dict[str, Any] = {
        "general.architecture": family,
        "general.basename": files.id.rpartition("/")[2],
        "general.parameter_count": parameters(system, model),
        f"{family}.context_length": entry.max_model_len or files.context_length,
    }
    return info | {f"{family}.{name}": shape[key] for name, key in _SHAPE.items() if key in shape}


def _capabilities(system: System, model: str) -> list[str]:
    """What will work as it is: tools and thinking need a parser, which the entry names."""
    files, entry = system.catalog.files[model], system.catalog.of(model)
    if files.kind != "chat":
        return ["embedding"] if files.kind == "embedding" else []
    given = {name.strip().lstrip("-").replace("_", "-") for name in entry.extra_args}
    found = ["completion"]
    if "vision_config" in files.config:
        found.append("vision")
    if "tool-call-parser" in given:
        found.append("tools")
    if "reasoning-parser" in given:
        found.append("thinking")
    return found
