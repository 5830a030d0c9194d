"""The server's errors, and how each becomes an HTTP status and the dialect's error object."""

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
    """The server cannot start as it was asked to."""


class ApiError(IssunError):
    """A request is refused; it knows its HTTP status and the dialect's type, code and parameter.

    `headers` are what the response has besides.
    """

    status, kind, code = 400, "invalid_request_error", "invalid_value"
    param: str | None = None
    headers: Mapping[str, str] = MappingProxyType({})


class AmbiguousBodyError(ApiError):
    """The headers say twice where the body ends; nothing behind it is read."""

    headers = MappingProxyType({"Connection": "close"})


class NotFoundError(ApiError):
    """There is no such model or address."""

    status, code = 404, "not_found"


class ModelNotFoundError(NotFoundError):
    """Another model is served."""

    code, param = "model_not_found", "model"


class UnsupportedError(ApiError):
    """The dialect has it, this server does not."""

    code = "unsupported"


class AuthenticationError(ApiError):
    """The key is missing or wrong."""

    status, kind, code = 401, "authentication_error", "invalid_api_key"
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class ForbiddenError(ApiError):
    """The request comes from a page or under a name that is not this server's."""

    status, kind, code = 403, "permission_error", "forbidden"


class MethodError(ApiError):
    """The address takes another method; it knows which."""

    status, code = 405, "method_not_allowed"

    def __init__(self, template: str, *, allow: str, **values: object) -> None:
        super().__init__(template, allow=allow, **values)
        self.headers = {"Allow": allow}


class SlowRequestError(ApiError):
    """The body did not come in time."""

    status, code = 408, "request_timeout"


class TooLargeError(ApiError):
    """The body is larger than the server takes."""

    status, code = 413, "request_too_large"


class QueueFullError(ApiError):
    """Too many requests wait; it knows after how many seconds to try again."""

    status, kind, code = 429, "rate_limit_error", "queue_full"

    def __init__(self, template: str, *, retry_after: int, **values: object) -> None:
        super().__init__(template, retry_after=retry_after, **values)
        self.retry_after = retry_after
        self.headers = {"Retry-After": str(retry_after)}


class UnavailableError(ApiError):
    """The server is ending, or has no memory left."""

    status, kind, code = 503, "server_error", "unavailable"


class DeadlineError(UnavailableError):
    """The answer took longer than a request may."""

    code = "deadline_exceeded"


class InternalError(ApiError):
    """What should not happen; the reason is in the server's own output."""

    status, kind, code = 500, "server_error", "internal_error"


def as_api_error(error: Exception) -> ApiError:
    """Any error as one that the dialect can say."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextError):
        # Beside the code, the words by which clients know it that look at the message alone.
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
    return InternalError("The server failed; its own output says more.")


def error_object(error: ApiError) -> dict[str, Any]:
    """The dialect's error object."""
    return {
        "error": {
            "message": str(error),
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }
