"""Errors as clients get them: OpenAI's shape, with a status and a remedy."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..engine.generation import Generation
from ..errors import EngineError, MultiverseError, RequestError, UpstreamError
from . import logs

_UPSTREAM_BACK = 5
"""Seconds after which to try again when the server that generates is down."""


class ApiError(MultiverseError):
    """A request failed or was refused.

    Attributes:
        status: HTTP status.
        message: what is wrong and what to do about it.
        type: OpenAI's class of error, such as ``invalid_request_error``.
        param: the request's field that is at fault, such as ``messages.0.content``; `None` if there is no such field.
        code: a word for programs, such as ``invalid_api_key``.
        headers: to be sent along, such as ``Retry-After``.
        details: more fields of the error, such as a line number.
    """

    def __init__(
        self,
        status: int,
        message: str,
        type: str = "invalid_request_error",  # noqa: A002 (the field's name in the API)
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type = status, message, type
        self.param, self.code = param, code
        self.headers, self.details = dict(headers or {}), dict(details or {})


def body(error: ApiError) -> dict[str, Any]:
    """The error as JSON, in the shape that OpenAI's clients read."""
    fields = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return {"error": {**fields, **error.details}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request cannot be honoured as it stands."""
    return ApiError(400, message, "invalid_request_error", param, code)


def server_error(message: str, status: int = 500, code: str | None = None, retry_after: int | None = None) -> ApiError:
    """500: the fault is the server's own; `retry_after` in seconds."""
    headers = {"retry-after": str(retry_after)} if retry_after is not None else None
    return ApiError(status, message, "server_error", None, code, headers)


def timed_out() -> ApiError:
    """503: a request's deadline has passed while it was waiting."""
    return server_error("the request reached its deadline while it was waiting: try again later", 503, "timeout", 10)


def failed(generation: Generation) -> ApiError | None:
    """The error for a generation that is no answer; `None` if it is one."""
    match generation.finish_reason:
        case "malformed":
            # Only with guard=false, which was the client's wish.
            return ApiError(
                422,
                f"the model broke the grammar of its tags ({generation.structure_error}): leave multiverse.guard on",
                param="multiverse.guard",
                code="malformed_generation",
            )
        case "error" if "response_format" in (generation.structure_error or ""):
            return invalid(f"{generation.structure_error}: simplify the schema", "response_format", "response_format_failed")
        case "error":
            return server_error(f"the generation failed: {generation.structure_error}", code="generation_failed")
        case "deadline" if not generation.usage.admitted:
            return timed_out()
        case "abort":
            return server_error("the server is shutting down: ask again", 503, "shutting_down")
        case _:
            return None


def _upstream(error: UpstreamError) -> ApiError:
    """The error for a fault of the server that generates for this one; its address and words go to the log only."""
    logs.log("upstream failure", level=logging.ERROR, error=str(error))
    match error.status:
        case 400 | 413 | 422:
            return invalid(f"the server that runs the model refuses this request ({error.status}): is the prompt too long?")
        case 401 | 403 | 404:
            return server_error(
                f"the server that runs the model refuses this one ({error.status}): its operator has to see to that",
                502,
                "upstream_refused",
            )
        case 429:
            return ApiError(
                429,
                "the server that runs the model is full: try again soon",
                "rate_limit_error",
                code="upstream_full",
                headers={"retry-after": str(_UPSTREAM_BACK)},
            )
        case _:
            return server_error(
                "the server that runs the model cannot be reached, or failed: try again soon",
                503,
                "upstream_unavailable",
                _UPSTREAM_BACK,
            )


def as_api_error(error: Exception) -> ApiError:
    """The error that a client gets for an exception; internals go to the log only."""
    match error:
        case ApiError():
            return error
        case RequestError():
            return invalid(str(error))
        case UpstreamError():
            return _upstream(error)
        case EngineError():
            logs.log("engine failure", level=logging.ERROR, error=str(error))
            return server_error("the engine failed while it worked on this request: ask again", code="engine_failure")
        case _:
            logs.LOGGER.error("unexpected failure", exc_info=error)
            return server_error("something went wrong in the server: its log says more", code="internal_error")
