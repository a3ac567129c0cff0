"""Runs the generations of one request and watches whether somebody still wants them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request

from ..errors import ResourceLimitError
from ..grammar import Grammar
from ..results import Chunk, GenerationResult, Round
from .errors import ApiError, invalid
from .metrics import Metrics
from .schemas import Sampling
from .settings import Settings

if TYPE_CHECKING:
    from ..engine import Engine
    from ..requests import AsyncStream

T = TypeVar("T")


# The API key that the request at hand brought.
caller: ContextVar[bytes] = ContextVar("caller", default=b"")


@dataclass(frozen=True)
class Server:
    """What every handler needs."""

    engine: Engine
    settings: Settings
    metrics: Metrics
    started: int


@dataclass(frozen=True)
class Piece:
    """A chunk of one of several choices, and per token who drafted it, where that is asked for."""

    index: int
    chunk: Chunk
    sources: tuple[str, ...] = ()


def engine_options(body: Sampling) -> dict[str, Any]:
    """Sampling and stops of a request, under the engine's names; what is not given stays out."""
    names = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty")
    options = {name: getattr(body, name) for name in names if getattr(body, name) is not None}
    if body.repeat_penalty is not None:
        options["repetition_penalty"] = body.repeat_penalty
    if body.logit_bias:
        options["logit_bias"] = _logit_bias(body.logit_bias)
    if body.stop:
        options["stop"] = body.stop
    if body.ignore_eos:
        options["ignore_eos"] = True
    if body.speculation is False:
        options["speculate"] = False
    if body.remember is False:
        options["remember"] = False
    key = memory_key(caller.get(), body.user or "")
    if key:
        options["memory_key"] = key
    return options


def memory_key(key: bytes, user: str) -> str:
    """Who asks, for a memory in which users do not meet each other's texts.

    Args:
        key: the API key that the request brought; empty: none is asked for.
        user: the request's `user`.
    """
    if not key and not user:
        return ""
    return hashlib.sha256(key + b"\0" + user.encode("utf-8", "surrogatepass")).hexdigest()


def grammar_of(body: Sampling) -> Grammar | None:
    """What the text is to follow; compiling takes a moment.

    Raises:
        InvalidArgumentError: it cannot be followed.
    """
    if body.json_schema is not None and body.grammar is not None:
        raise invalid("json_schema and grammar do not go together", "grammar", "invalid_value")
    if body.json_schema is not None:
        return Grammar.json_schema(body.json_schema)
    return None if body.grammar is None else Grammar.gbnf(body.grammar)


def _logit_bias(bias: dict[str, float]) -> dict[int, float]:
    return {int(token): float("-inf") if value <= -100 else value for token, value in bias.items()}


def seeds(body: Sampling, n: int) -> list[int]:
    """One for each choice; those of a given seed are the seed and those behind it."""
    first = secrets.randbits(32) if body.seed is None else body.seed
    return [(first + i) % 2**63 for i in range(n)]


_counting: set[asyncio.Task[None]] = set()  # a loop alone does not keep its tasks


class Generations:
    """The choices of one request, from submission on; leaving the block ends what still runs."""

    def __init__(self, server: Server, with_sources: bool = False) -> None:
        self._server = server
        self._with_sources = with_sources
        self._arrived = time.monotonic()
        self.requests: list[AsyncStream] = []
        self._uncounted: list[AsyncStream] = []
        self._sources: list[deque[str]] = []

    def submit(self, prompt: Sequence[int], options: dict[str, Any]) -> None:
        sources: deque[str] = deque()

        def on_round(told: Round) -> None:  # before the chunk of its tokens
            sources.extend(told.source for _ in told.accepted)
            sources.append("")

        if self._with_sources:
            options = {**options, "on_round": on_round}
        try:
            request = self._server.engine.stream(prompt, **options)
        except ResourceLimitError as error:  # however empty the engine is: no use to try again
            raise invalid(str(error), "max_tokens", error.code) from None
        self.requests.append(request)
        self._uncounted.append(request)
        self._sources.append(sources)

    def _piece(self, index: int, chunk: Chunk) -> Piece:
        if not self._with_sources:
            return Piece(index, chunk)
        sources = self._sources[index]
        return Piece(index, chunk, tuple(sources.popleft() for _ in chunk.token_ids))

    async def pieces(self) -> AsyncGenerator[Piece]:
        """Chunks of all choices, as they come."""
        queue: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._read(i, request, queue))
            for i, request in enumerate(self.requests)
        ]
        first = True
        try:
            running = len(tasks)
            while running:
                item = await queue.get()
                if item is None:
                    running -= 1
                elif isinstance(item, BaseException):
                    raise item
                else:
                    if first and item.chunk.token_ids:
                        self._server.metrics.first_token.observe(time.monotonic() - self._arrived)
                        first = False
                    yield item
        finally:
            for task in tasks:
                task.cancel()

    async def _read(
        self,
        index: int,
        request: AsyncStream,
        queue: asyncio.Queue[Piece | BaseException | None],
    ) -> None:
        try:
            async for chunk in request:
                queue.put_nowait(self._piece(index, chunk))
            queue.put_nowait(None)
        except Exception as error:  # the reader raises it
            queue.put_nowait(error)

    def close(self) -> None:
        """Ends what still runs, which is counted when it has ended: within one pass."""
        for request in self.requests:
            request.cancel()
        if self._uncounted:
            task = asyncio.get_running_loop().create_task(self._count_rest())
            _counting.add(task)
            task.add_done_callback(_counting.discard)

    async def _count_rest(self) -> None:
        for request in self._uncounted:
            with contextlib.suppress(Exception):  # one that failed has no figures
                self._count(await request.finished())

    def _count(self, result: GenerationResult) -> None:
        seconds = time.monotonic() - self._arrived
        self._server.metrics.count(result.stats, result.finish_reason, seconds)

    async def whole(self) -> list[GenerationResult]:
        """Reads all chunks; the results of all choices."""
        async with aclosing(self.pieces()) as pieces:
            async for _ in pieces:
                pass
        return self.results()

    def results(self) -> list[GenerationResult]:
        """Of all choices, when their chunks are read; counts them."""
        results = [request.result for request in self.requests]
        self._uncounted.clear()
        for result in results:
            self._count(result)
        return results


@asynccontextmanager
async def generations(server: Server, body: Sampling) -> AsyncIterator[Generations]:
    wanted = body.stream_options
    running = Generations(server, bool(wanted and wanted.include_speculation))
    try:
        yield running
    finally:
        running.close()


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which ends when the other side hangs up.

    Raises:
        ApiError: 499; nobody reads it.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(499, "the client closed the connection", code="cancelled")
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def in_thread(work: Callable[[], T]) -> T:
    """Work of milliseconds (templates, tokens) that must not hold up others' streams."""
    return await asyncio.get_running_loop().run_in_executor(None, work)
