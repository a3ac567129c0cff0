"""What the cluster's addresses lead to: reads requests, passes them on, passes answers back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ..server.answers import event
from ..server.errors import ApiError
from ..server.metrics import CONTENT_TYPE_LATEST, merged
from ..server.reading import too_long
from . import known
from .prefixes import blocks_of, prompt_of

_log = logging.getLogger("specdec_native.ray_app")
_TRIES = 3
_PASSED = ("http_version", "method", "scheme", "path", "raw_path", "query_string")
_DIED = ApiError(503, "the replica that answered died; try again", code="replica_died")


class Front:
    """A deployment of Ray Serve."""

    def __init__(self, replicas: Any, max_body_bytes: int) -> None:
        self._replicas = replicas.options(stream=True)
        self._max_body_bytes = max_body_bytes

    async def __call__(self, request: Request) -> Response:
        try:
            body = await self._read(request)
            if request.method == "GET" and request.scope["path"] == "/metrics":
                return await self._metrics(request)
            blocks = await asyncio.to_thread(_blocks, body) if body else []
            messages = self._ask(_told(request), body, blocks)
            return _Passed(await anext(messages), messages)
        except ApiError as error:
            return error.response()

    async def _read(self, request: Request) -> bytes:
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > self._max_body_bytes:
                    raise too_long(self._max_body_bytes)
        except ClientDisconnect:
            raise ApiError(499, "the client closed the connection", code="cancelled") from None
        return bytes(body)

    async def _ask(
        self, scope: dict[str, Any], body: bytes, blocks: Sequence[int], to: str = ""
    ) -> AsyncIterator[Message]:
        """Messages of the answer. A replica that dies before the first one is tried no more."""
        for left in reversed(range(_TRIES)):
            call = self._replicas.answer.remote(scope, body, blocks=list(blocks), to=to)
            begun = False
            try:
                async for message in call:
                    begun = True
                    yield message
                return
            except BackPressureError:
                raise ApiError(
                    429,
                    "as many requests wait as may",
                    code="queue_full",
                    headers={"Retry-After": "1"},
                ) from None
            except RayActorError:
                if begun or not left:
                    raise _DIED from None
            except (asyncio.CancelledError, GeneratorExit):
                call.cancel()  # the client hung up
                raise

    async def _metrics(self, request: Request) -> Response:
        """Of all replicas, told apart by a label."""
        names = sorted(known.replicas.get(self._replicas.deployment_name, ()))
        texts: dict[str, str] = {}
        for name in names:
            messages = self._ask(_told(request), b"", (), to=name)
            start, *rest = [message async for message in messages]
            if start["status"] != 200:  # no key
                return _Passed(start, _all(rest))
            served = dict(start["headers"])[b"x-specdec-replica"].decode()
            texts[served] = b"".join(message.get("body", b"") for message in rest).decode()
        return Response(await asyncio.to_thread(merged, texts), media_type=CONTENT_TYPE_LATEST)


def _blocks(body: bytes) -> list[int]:
    try:
        return blocks_of(prompt_of(json.loads(body)))
    except (ValueError, RecursionError):
        return []  # the replica says what is wrong with it


def _told(request: Request) -> dict[str, Any]:
    """What a replica needs to know of a request; nothing in it is of this process."""
    scope = {name: request.scope[name] for name in _PASSED if name in request.scope}
    client = request.scope.get("client")
    return {
        **scope,
        "root_path": "",
        "headers": [(bytes(name), bytes(value)) for name, value in request.scope["headers"]],
        "client": tuple(client) if client else None,
        "server": None,
    }


async def _all(messages: Sequence[Message]) -> AsyncIterator[Message]:
    for message in messages:
        yield message


class _Passed(Response):
    """An answer as it comes."""

    def __init__(self, start: Message, rest: AsyncIterator[Message]) -> None:
        super().__init__(status_code=start["status"])
        self._start = start
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streams = (b"content-type", b"text/event-stream") in [
            (name.lower(), value.partition(b";")[0]) for name, value in self._start["headers"]
        ]
        async with contextlib.aclosing(self._rest) as rest:  # type: ignore[type-var]
            await send(self._start)
            try:
                async for message in rest:
                    await send(message)
            except ApiError as error:
                if not streams:
                    raise  # the connection ends, and the other side sees that something is missing
                text = event(error.body()).encode()
                await send({"type": "http.response.body", "body": text, "more_body": False})
