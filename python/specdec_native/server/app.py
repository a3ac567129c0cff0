"""The application: addresses, keys, and what every answer passes."""

from __future__ import annotations

import contextlib
import hmac
import pathlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from .._extras import missing

try:
    import prometheus_client  # noqa: F401
    import pydantic  # noqa: F401
    import starlette  # noqa: F401
except ImportError as _error:
    raise missing("specdec_native.server.app", "server", _error) from None

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import SpecdecError
from . import chat, completions, facts, fill
from .errors import (
    ApiError,
    answer_api_error,
    answer_engine_error,
    answer_http_error,
    answer_unexpected,
)
from .generation import Server, caller
from .metrics import Metrics
from .openapi import openapi
from .settings import Settings

if TYPE_CHECKING:
    from ..engine import Engine

_PORT = re.compile(r":\d*\Z")
PAGE = pathlib.Path(__file__).parent / "page"
# Nothing from elsewhere: no scripts, no pictures, no requests.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(engine: Engine, settings: Settings, *, hosts: tuple[str, ...] = ("*",)) -> Starlette:
    """An ASGI application that serves `engine` and closes it at its end.

    Args:
        engine: what generates.
        settings: limits and names.
        hosts: values of the `Host` header that are answered; "*": any. A server of this computer
            alone answers only to its own names, so that no page of another site reaches it under
            a name of its own.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            engine.close()

    routes: list[BaseRoute] = [
        Route("/v1/models", facts.models),
        Route("/v1/models/{model:path}", facts.one_model),
        Route("/v1/chat/completions", chat.chat_completions, methods=["POST"]),
        Route("/v1/completions", completions.completions, methods=["POST"]),
        Route("/infill", fill.infill, methods=["POST"]),
        Route("/tokenize", facts.tokenize, methods=["POST"]),
        Route("/detokenize", facts.detokenize, methods=["POST"]),
        Route("/health", facts.health),
        Route("/metrics", facts.metrics),
        Route("/openapi.json", _openapi),
    ]
    page = _Page(directory=PAGE)
    for address, name in _page_addresses(settings).items():
        # Each by name: a mount would answer for every address.
        routes.append(Route(address, page.answer(name)))
    middleware = [
        Middleware(
            CORSMiddleware,
            allow_origins=list(settings.allowed_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # clients send some of their own, as x-stainless-os
            expose_headers=["Retry-After"],
        ),
        Middleware(_Guard, settings=settings, hosts=hosts),
    ]
    app = Starlette(
        routes=routes,
        middleware=middleware,
        lifespan=lifespan,
        exception_handlers={
            ApiError: answer_api_error,
            SpecdecError: answer_engine_error,
            HTTPException: answer_http_error,
            Exception: answer_unexpected,
        },
    )
    app.state.server = Server(engine, settings, Metrics(), int(time.time()))
    return app


def _page_addresses(settings: Settings) -> dict[str, str]:
    """The page's files by address."""
    names = sorted(path.name for path in PAGE.iterdir()) if settings.page else []
    return {"/" if name == "index.html" else f"/{name}": name for name in names}


async def _openapi(request: Request) -> Response:
    server: Server = request.app.state.server
    return JSONResponse(openapi(server.engine.target.info.vocab_size))


class _Page(StaticFiles):
    """The page: nothing from elsewhere, never in another site's frame."""

    def answer(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await self.get_response(name, request.scope)

        return answer

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-cache"
        return response


class _Guard:
    """Looks at names and keys, and counts answers."""

    def __init__(self, app: ASGIApp, settings: Settings, hosts: tuple[str, ...]) -> None:
        self._app = app
        self._hosts = None if "*" in hosts else frozenset(host.lower() for host in hosts)
        self._keys = [key.encode() for key in settings.api_keys]
        # These and no others: routes match more spellings of a path than one list could hold.
        self._free = frozenset(("/health", *_page_addresses(settings)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        server: Server = scope["app"].state.server
        path: str = scope["path"]
        known = path if path in _COUNTED else "/v1/models" if path.startswith("/v1/models/") else ""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                server.metrics.answers.labels(known or "other", str(message["status"])).inc()
            await send(message)

        if self._hosts is not None and self._host(scope) not in self._hosts:
            error = ApiError(
                403,
                f"this server does not answer to the name {self._host(scope)!r}; --allow-host "
                "adds one",
                code="unknown_host",
            )
            await error.response()(scope, receive, counted)
            return
        key = self._key(scope)
        if self._keys and path not in self._free and not key:
            error = ApiError(
                401,
                "a key is missing or wrong: send `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
            await error.response()(scope, receive, counted)
            return
        caller.set(key)
        await self._app(scope, receive, counted)

    @staticmethod
    def _host(scope: Scope) -> str:
        """Without the port."""
        for name, value in scope["headers"]:
            if name == b"host":
                host: str = value.decode("latin-1").strip().lower()
                return _PORT.sub("", host)
        return ""

    def _key(self, scope: Scope) -> bytes:
        """The one that the request brings, if it is one of those that may ask."""
        for name, value in scope["headers"]:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                given: bytes = value[7:].strip()
                # All of them, so that the time says nothing.
                known = sum(hmac.compare_digest(given, key) for key in self._keys) > 0
                return given if known else b""
        return b""


_COUNTED = frozenset(
    (
        *("/v1/models", "/v1/chat/completions", "/v1/completions", "/infill"),
        *("/tokenize", "/detokenize", "/metrics", "/health", "/openapi.json", "/"),
    )
)
