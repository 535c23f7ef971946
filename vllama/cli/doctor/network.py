"""The server, if one runs, and the ports that it and its engines want."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vllama.cli import address
from vllama.cli.client import AnswerError, Client, ServerDownError
from vllama.cli.doctor.finding import Finding, broken, note, ok

if TYPE_CHECKING:
    from vllama.config import VllamaConfig

ENGINES_LEAST = 16


def server(url: str) -> tuple[int | None, list[Finding]]:
    """The port of the one that answers, and what it says of itself. "" is where the settings say."""
    try:
        client = Client(url)
    except ValueError as error:
        return None, [broken("server", f"nobody can be asked: {error}", "mend that setting, or unset it")]
    port = address.parse(client.url, "").port
    try:
        client.get("/health")
    except ServerDownError as error:
        if error.nobody:
            return None, [ok("server", f"none runs at {client.url}: `vllama serve` starts one")]
        return None, [note("server", str(error), "look at what listens there, or name another with --server")]
    except AnswerError as error:
        if error.code == "shutting_down":
            return port, [note("server", f"the one at {client.url} is shutting down", "wait for its end")]
        return None, [
            broken("server", f"{client.url}: {error}", "name the right one with --server or VLLAMA_URL")
        ]
    try:
        info = client.get("/control/info")
    except ServerDownError as error:
        return port, [broken("server", str(error), "its own log tells why; restart it")]
    except AnswerError as error:
        return port, [
            note("server", f"{client.url} answers, but not about itself: {error}", "set VLLAMA_CONTROL_KEY")
        ]
    return port, list(_told(client.url, info))


def _told(url: str, info: dict[str, object]) -> Iterator[Finding]:
    host = info.get("host")
    about = host if isinstance(host, dict) else {}
    zygote = about.get("zygote", "?")
    says = f"one runs at {url}: {info.get('models', '?')} models, preloaded process {zygote}"
    if zygote == "broken":
        yield note(
            "server",
            f"{says} ({about.get('start_mode_reason', '')})",
            "engines start slowly; its log tells why",
        )
    else:
        yield ok("server", says)
    file = info.get("models_file")
    if isinstance(file, dict) and file.get("problem"):
        yield broken("server", f"it does not go by models.yaml: {file['problem']}", "mend that line")


def ports(config: "VllamaConfig", server_port: int | None) -> Iterator[Finding]:
    """Free, or held by whom; `server_port` is the server's that answered."""
    from vllama.api.listen import Taken, listen
    from vllama.errors import ConfigError
    from vllama.host.ports import reserve

    if server_port == config.port:
        yield ok("port", f"{config.port} is the server's")
    else:
        try:
            listen(config.host, config.port).close()
            yield ok("port", f"{config.port} on {config.host} is free")
        except Taken as taken:
            what, _, mend = taken.message.partition("; ")
            if taken.holder.passes:
                yield note("port", what, f"{mend}: `vllama serve` waits for that")
            else:
                yield broken("port", what, mend.replace("--port", f"port: VLLAMA_PORT={config.port + 1}"))
        except ConfigError as error:
            yield broken("port", error.message.partition(";")[0], "choose another host or port")
    free = []
    for port in range(config.vllm_port_start, config.vllm_port_end + 1):
        if (found := reserve(port, port)) is not None:
            found.close()
            free.append(port)
    says = f"{len(free)} of {config.vllm_port_start}-{config.vllm_port_end} are free for engines"
    if len(free) < ENGINES_LEAST:
        mend = "choose another range: VLLAMA_VLLM_PORT_START, VLLAMA_VLLM_PORT_END"
        yield (note if free else broken)("engine ports", says, mend)
    else:
        yield ok("engine ports", says)
    if config.host not in ("127.0.0.1", "::1", "localhost") and not (config.api_key or config.api_key_file):
        yield note(
            "access",
            f"others reach {config.host} without a key: whoever does may use every model",
            "set VLLAMA_API_KEY",
        )
