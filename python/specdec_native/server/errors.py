"""Errors in the form that OpenAI's clients read."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from ..errors import (
    ClosedError,
    ContextFullError,
    InvalidArgumentError,
    MissingExtraError,
    QueueFullError,
    ResourceLimitError,
    SpecdecError,
    TemplateError,
    UnsupportedModelError,
)


class ApiError(Exception):
    """What a request is answered with instead of a result.

    Args:
        status: HTTP status.
        message: what was wrong, and what to do.
        param: the field of the request concerned.
        code: stable short name of the cause.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, "server_error"),
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, headers=self.headers)


_TYPES = {
    **dict.fromkeys((400, 404, 405, 408, 413, 415), "invalid_request_error"),
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


# Fields that hold what the model reads.
_TEXTS = {
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt",
    "/infill": "input_prefix",
}


def of_engine(error: SpecdecError, path: str = "") -> ApiError:
    """What the engine refuses, as an answer of the address `path`."""
    message = str(error)
    if isinstance(error, ContextFullError):
        param = _TEXTS.get(path)
        return ApiError(400, message, param=param, code="context_length_exceeded")
    if isinstance(error, TemplateError):
        return ApiError(400, message, param="messages", code="template_error")
    if isinstance(error, MissingExtraError):
        return ApiError(501, message, code=error.code)
    if isinstance(error, InvalidArgumentError):
        return ApiError(400, message, code="invalid_value")
    if isinstance(error, (QueueFullError, ResourceLimitError)):
        return ApiError(429, message, code=error.code, headers={"Retry-After": "1"})
    if isinstance(error, ClosedError):
        return ApiError(503, "the server is closing", code="closing")
    if isinstance(error, UnsupportedModelError):
        return ApiError(404, message, code=error.code)
    return ApiError(500, message, code=error.code)


async def answer_api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error.response()


async def answer_engine_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SpecdecError)
    return of_engine(error, request.scope["path"]).response()


async def answer_http_error(request: Request, error: Exception) -> JSONResponse:
    status = int(getattr(error, "status_code", 500))
    names = {404: f"no such address: {request.url.path}", 405: f"{request.method} is not allowed"}
    message = names.get(status, str(getattr(error, "detail", error)))
    headers = dict(getattr(error, "headers", None) or {})
    return ApiError(status, message, headers=headers).response()


async def answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    """What is wrong here is for the log, not for the other side."""
    return ApiError(500, "the server failed; its log says why", code="internal").response()
