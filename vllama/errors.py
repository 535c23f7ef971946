"""What can go wrong, for the person who reads it: one tree, each class with a code and a status hint.

Imports no HTTP: `api` turns an error into OpenAI's error shape, `cli` into one line on stderr.
"""

CITED_CHARS_MAX = 200


def cited(said: object) -> str:
    """What a request said, as an error or a log repeats it: of something long the beginning, and how long it was."""
    text = str(said)
    return text if len(text) <= CITED_CHARS_MAX else f"{text[:CITED_CHARS_MAX]}... ({len(text)} characters)"


class VllamaError(Exception):
    """Any error that vllama answers on purpose. `message` says what happened, to which model, what to do next."""

    code = "internal_error"
    type = "server_error"
    status_hint = 500

    def __init__(self, message: str, *, model: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.model = model
        self.retry_after_s = retry_after_s


class BadRequest(VllamaError):
    """The request cannot be understood: not JSON, no `model`, a wrong type."""

    code, type, status_hint = "bad_request", "invalid_request_error", 400


class ConfigError(VllamaError):
    """A setting or a configuration file is wrong; the message names file, line and key where there is one."""

    code, type, status_hint = "config_error", "invalid_request_error", 400


class ModelUnknown(VllamaError):
    """No complete model of that name in the cache."""

    code, type, status_hint = "model_not_found", "invalid_request_error", 404


class RouteUnserved(VllamaError):
    """Models of this kind have no such route."""

    code, type, status_hint = "route_unserved", "invalid_request_error", 404


class Overtaken(VllamaError):
    """Another command, or requests that waited, made this command void."""

    code, type, status_hint = "overtaken", "conflict_error", 409


class BodyTooLarge(VllamaError):
    """The body is longer than `body_bytes_max`."""

    code, type, status_hint = "body_too_large", "invalid_request_error", 413


class UnsupportedBody(VllamaError):
    """The body is compressed, or of a kind that this route does not take."""

    code, type, status_hint = "unsupported_media_type", "invalid_request_error", 415


class ResponseUnknown(VllamaError):
    """No living engine has made a response of this id."""

    code, type, status_hint = "response_not_found", "invalid_request_error", 404


class RequestUnknown(VllamaError):
    """The journal holds no request of this id (any more)."""

    code, type, status_hint = "request_not_found", "invalid_request_error", 404


class QueueFull(VllamaError):
    """Too many requests wait for this model already."""

    code, type, status_hint = "queue_full", "rate_limit_error", 429


class StartFailed(VllamaError):
    """The engine could not be brought up; `message` ends with the last lines of its log."""

    code, status_hint = "start_failed", 502


class EngineLost(VllamaError):
    """The engine died, or broke the connection, while it served this request."""

    code, status_hint = "engine_lost", 502


class NoMemory(VllamaError):
    """No memory could be had within the bound, or the weights can never fit."""

    code, status_hint = "no_memory", 503


class InstanceStopped(VllamaError):
    """An operator stopped the model, or put it to sleep, while the request waited."""

    code, status_hint = "stopped", 503


class ShuttingDown(VllamaError):
    """The server is draining; it admits nothing more."""

    code, status_hint = "shutting_down", 503


class WaitTimeout(VllamaError):
    """The caller's own bound (`X-Vllama-Wait-S`) has passed."""

    code, type, status_hint = "wait_timeout", "timeout_error", 504


class Overloaded(VllamaError):
    """This machine lets the server open no more connections."""

    code, status_hint = "overloaded", 503


class HostUnavailable(VllamaError):
    """The host did not answer: the outcome of the call is unknown."""

    code, status_hint = "host_unavailable", 503


class LaunchError(VllamaError):
    """The host could not create the process at all (no port, no interpreter, no memory for a fork)."""

    code, status_hint = "launch_failed", 502


class PullFailed(VllamaError):
    """A model could not be brought from the hub; what has come of it is kept for the next try."""

    code, status_hint = "pull_failed", 502


class ModelInUse(VllamaError):
    """The model's files cannot go while its engine is there."""

    code, type, status_hint = "model_in_use", "conflict_error", 409


class JournalBroken(VllamaError):
    """A saved journal cannot be read or folded; `line` is where."""

    code, type, status_hint = "journal_broken", "invalid_request_error", 400

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line
