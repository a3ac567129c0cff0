"""Reads the body of a request, within its limit."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from .errors import ApiError, invalid
from .generation import Server, in_thread
from .schemas import Body, parse

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LONG = 1 << 16  # bytes; a longer body takes milliseconds


async def read(kind: type[Body], request: Request) -> Any:
    """A request, understood.

    Raises:
        ApiError: too long, another type, no JSON, or a field is wrong. Another type is refused
            because a browser sends it to other sites without asking.
    """
    data = await _read(request)
    if len(data) < _LONG:
        return parse(kind, _json(data))
    return await in_thread(lambda: parse(kind, _json(data)))


async def _read(request: Request) -> bytearray:
    server: Server = request.app.state.server
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415, f"Content-Type is {kind!r}, expected application/json", code="unsupported_type"
        )
    limit = server.settings.max_body_bytes
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise too_long(limit)
    data = bytearray()
    try:
        async for part in request.stream():
            data += part
            if len(data) > limit:
                raise too_long(limit)
    except ClientDisconnect:
        raise ApiError(499, "the client closed the connection", code="cancelled") from None
    return data


def _json(data: bytearray) -> Any:
    try:
        # Strictly UTF-8: of bytes json would take UTF-16 too, and halves of characters.
        body = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse)
        return _whole_characters(body) if _SURROGATE.search(data) else body
    except RecursionError:
        raise invalid("the body nests too deeply", None, "invalid_json") from None
    except ValueError as error:
        raise invalid(f"the body is no JSON: {error}", None, "invalid_json") from None


def too_long(limit: int) -> ApiError:
    return ApiError(
        413,
        f"the body is longer than {limit} bytes; shorten it, or start the server with a higher "
        "--max-body",
        code="body_too_large",
    )


def _whole_characters(value: Any) -> Any:
    """JSON can spell halves of characters alone; they become U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {_whole_characters(k): _whole_characters(v) for k, v in value.items()}
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
