"""The server's errors, each with its HTTP status and the API's error object."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from issun.runtime.errors import (
    BusyError,
    CompilerBusyError,
    ContextError,
    IssunError,
    OutOfMemoryError,
    ParameterError,
    SamplingError,
)


class ServerError(IssunError):
    """The server cannot start with these options."""


class ApiError(IssunError):
    """A request is refused; has the HTTP status and the API's error type, code and parameter.

    `headers` are additional headers of the response.
    """

    status, kind, code = 400, "invalid_request_error", "invalid_value"
    param: str | None = None
    headers: Mapping[str, str] = MappingProxyType({})


class AmbiguousBodyError(ApiError):
    """The headers give two lengths of the body, so nothing after it can be read."""

    headers = MappingProxyType({"Connection": "close"})


class NotFoundError(ApiError):
    """There is no such model or path."""

    status, code = 404, "not_found"


class ModelNotFoundError(NotFoundError):
    """The requested model is not the one that is served."""

    code, param = "model_not_found", "model"


class UnsupportedError(ApiError):
    """The API has this feature, but this server does not."""

    code = "unsupported"


class AuthenticationError(ApiError):
    """The key is missing or wrong."""

    status, kind, code = 401, "authentication_error", "invalid_api_key"
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class ForbiddenError(ApiError):
    """The request's origin or host name is not allowed."""

    status, kind, code = 403, "permission_error", "forbidden"


class MethodError(ApiError):
    """The path does not accept this method."""

    status, code = 405, "method_not_allowed"

    def __init__(self, template: str, *, allow: str, **values: object) -> None:
        super().__init__(template, allow=allow, **values)
        self.headers = {"Allow": allow}


class SlowRequestError(ApiError):
    """The body did not arrive in time."""

    status, code = 408, "request_timeout"


class TooLargeError(ApiError):
    """The body is larger than allowed."""

    status, code = 413, "request_too_large"


class QueueFullError(ApiError):
    """Too many requests are waiting; try again after `retry_after` seconds."""

    status, kind, code = 429, "rate_limit_error", "queue_full"

    def __init__(self, template: str, *, retry_after: int, **values: object) -> None:
        super().__init__(template, retry_after=retry_after, **values)
        self.retry_after = retry_after
        self.headers = {"Retry-After": str(retry_after)}


class UnavailableError(ApiError):
    """The server is shutting down, or out of memory."""

    status, kind, code = 503, "server_error", "unavailable"


class DeadlineError(UnavailableError):
    """The answer took longer than the deadline."""

    code = "deadline_exceeded"


class InternalError(ApiError):
    """An unexpected error, whose cause is in the server's log."""

    status, kind, code = 500, "server_error", "internal_error"


def as_api_error(error: Exception) -> ApiError:
    """Any error as an ApiError."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextError):
        # Some clients recognize the error by this wording alone.
        words = "{message} This model's maximum context length is {limit} tokens."
        found = ApiError(words, message=str(error), limit=error.values["limit"])
        found.code = "context_length_exceeded"
        return found
    if isinstance(error, ParameterError | SamplingError):
        return ApiError("{message}", message=str(error))
    if isinstance(error, CompilerBusyError):
        return QueueFullError("{message}", message=str(error), retry_after=5)
    if isinstance(error, BusyError | OutOfMemoryError):
        return UnavailableError("{message}", message=str(error))
    return InternalError("The server failed; see its log.")


def error_object(error: ApiError) -> dict[str, Any]:
    """The API's error object."""
    return {
        "error": {
            "message": str(error),
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }
