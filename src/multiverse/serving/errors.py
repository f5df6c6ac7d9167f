"""Errors as OpenAI's API tells them. Pure data: no web framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """Something that a client is told.

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
    told = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return {"error": {**told, **error.details}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request cannot be honoured as it stands."""
    return ApiError(400, message, "invalid_request_error", param, code)


def not_found(message: str, code: str | None = None) -> ApiError:
    """404: there is no such thing."""
    return ApiError(404, message, "not_found_error", None, code)


def server_error(message: str, status: int = 500, code: str | None = None) -> ApiError:
    """500: the fault is the server's own."""
    return ApiError(status, message, "server_error", None, code)
