"""Requests of an engine: what they tell, for threads and for asyncio."""

from __future__ import annotations

import contextlib
import functools
import queue
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from . import _core
from ._convert import chunk_of, result_of, round_callback
from ._gate import Gate, Wake
from .errors import ClosedError
from .model import on_main_thread, refuse_copy
from .results import Chunk, DecodeStats, GenerationResult, Round

if TYPE_CHECKING:
    import asyncio  # a quarter of the time of importing the package


class EngineCall(NamedTuple):
    """A request, and what Python does with its results."""

    native: _core.Engine
    request: _core.GenerateRequest
    n_top: int | None
    time_limit: float | None
    on_progress: Callable[[int, int], object] | None
    on_round: Callable[[Round], object] | None

    def timed_out(self) -> _core.GenerateResult:
        """What it ends with when its time is over before there is a place for it."""
        return self.native.time_out(self.request, poll_signals=on_main_thread())


class State:
    """What a request has told so far.

    The engine's thread calls `told`, between passes. It holds neither the engine nor whoever reads
    it, so that both can be dropped.
    """

    def __init__(self, call: EngineCall, gate: Gate) -> None:
        self.chunks: deque[_core.OutputChunk] = deque()
        self.result: _core.GenerateResult | None = None
        self.error: BaseException | None = None
        self.ended = False
        self.gate = gate
        self._on_progress = call.on_progress
        self._on_round = round_callback(call.on_round)
        # Waits of one thread each. No Condition: an interrupted wait in its Python code can leave
        # its lock held, and the engine's thread, with everybody's requests, would wait for it.
        self._waits: list[queue.SimpleQueue[None]] = []
        self._wake: Wake | None = None
        self._ticket: _core.Ticket | None = None
        self.begun = False  # it was handed over
        self.cancelled = False
        limit = call.time_limit
        self._deadline = None if limit is None else time.monotonic() + limit

    @property
    def time_left(self) -> float | None:
        """Seconds until the limit, of which waiting for a place is a part; None: no limit."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def told(self, kind: str, payload: Any) -> None:
        if kind in ("progress", "round"):
            self._call_back(kind, payload)
            return
        if kind == "ticket":  # on the thread that submits
            self._submitted(payload)
            return
        if kind == "chunk":
            self.chunks.append(payload)
        else:
            self._end_with(kind, payload)
        self._wake_all()
        if self.ended:
            self.gate.place_is_free()

    def never_began(self, kind: str, payload: Any) -> None:
        """As `told`, of one that had no place, of which the gate is told by who waited for it."""
        self._end_with(kind, payload)
        self._wake_all()

    def _end_with(self, kind: str, payload: Any) -> None:
        if kind == "end":
            self.result = payload
        elif self.error is None:
            self.error = payload
        self.ended = True
        # The native request holds this object: a circle that no collector of garbage sees.
        self._ticket = None

    def _wake_all(self) -> None:
        # After what they wait for is there: whoever comes to wait later sees it.
        for wait in tuple(self._waits):
            wait.put(None)
        wake = self._wake
        if wake is not None:
            wake()

    def _call_back(self, kind: str, payload: Any) -> None:
        callback = self._on_progress if kind == "progress" else self._on_round
        if callback is None or self.error is not None:
            return
        try:
            callback(*payload)
        except BaseException as error:  # ends the request, and passes through
            self.error = error
            self.cancel()

    def _submitted(self, ticket: _core.Ticket) -> None:
        self.begun = True
        self._ticket = ticket
        if self.ended:  # before or after: one of the two sees what the other wrote
            self._ticket = None
        if self.cancelled:
            ticket.cancel()

    def cancel(self) -> None:
        self.cancelled = True
        ticket = self._ticket
        if ticket is not None:
            ticket.cancel()

    def listen(self, wake: Wake) -> None:
        """From now on `wake` is called on the engine's thread when there is something new."""
        self._wake = wake
        if self.ended or self.chunks:
            wake()

    def wait(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        news: queue.SimpleQueue[None] = queue.SimpleQueue()
        try:
            self._waits.append(news)
            while not ready():
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                try:
                    news.get(timeout=left)
                except queue.Empty:
                    return ready()
        finally:
            with contextlib.suppress(ValueError):  # interrupted before it was there
                self._waits.remove(news)
        return True


class _Handle:
    """What both kinds of requests have. Dropping the last reference ends the request."""

    def __init__(self, call: EngineCall, state: State) -> None:
        self._call = call
        self._state = state
        self._converted: GenerationResult | None = None

    def cancel(self) -> None:
        """Ends the request within one pass, from any thread; its result is "cancelled"."""
        self._state.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked for its end."""
        return self._state.cancelled

    @property
    def done(self) -> bool:
        """Whether the request has ended."""
        return self._state.ended

    @property
    def stats(self) -> DecodeStats | None:
        """Figures of the request, once it has ended with a result; `reused_prompt_tokens` is what
        was found in the caches of others."""
        if not self._state.ended or self._state.error is not None:
            return None
        return self._finished().stats

    def _finished(self) -> GenerationResult:
        state = self._state
        if state.error is not None:
            raise state.error
        if self._converted is None:
            assert state.result is not None
            call = self._call
            self._converted = result_of(call.native.speed_line, state.result, call.n_top)
        return self._converted

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # never made
            self._state.cancel()

    def __reduce__(self) -> NoReturn:
        refuse_copy(type(self).__name__)

    def __copy__(self) -> NoReturn:
        refuse_copy(type(self).__name__)

    def __deepcopy__(self, memo: object) -> NoReturn:
        refuse_copy(type(self).__name__)


class Request(_Handle):
    """A request that is at work: an iterator over its `Chunk`s and a context manager.

    Chunks wait until they are read, so nobody else's request is held up by a slow reader. Leaving
    its ``with`` block, dropping the last reference, and an exception while the iteration waits
    (Ctrl-C, most of all) end the request.
    """

    def __iter__(self) -> Request:
        return self

    def __next__(self) -> Chunk:
        state = self._state
        try:
            state.wait(lambda: state.ended or bool(state.chunks), None)
        except BaseException:
            state.cancel()
            raise
        try:
            return chunk_of(state.chunks.popleft(), self._call.n_top)
        except IndexError:
            if state.error is not None:
                raise state.error from None
            raise StopIteration from None

    def result(self, timeout: float | None = None) -> GenerationResult:
        """The whole result; waits for it, at most so many seconds.

        Raises:
            TimeoutError: it has not ended by then; it goes on.
        """
        state = self._state
        if not state.wait(lambda: state.ended, timeout):
            raise TimeoutError(f"the request has not ended within {timeout} seconds")
        return self._finished()

    def __enter__(self) -> Request:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()


def _set_in(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> bool:
    """False: the loop is closed, nobody waits any more."""
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:
        return False
    return True


class AsyncStream(_Handle):
    """An asynchronous iterator over the `Chunk`s of a request, and a context manager.

    Cancelling the task that waits for a chunk, leaving the ``async with`` block and dropping the
    stream end the request within one pass. Belongs to one event loop.
    """

    def __init__(self, call: EngineCall, state: State, submit: Submit) -> None:
        import asyncio

        super().__init__(call, state)
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._submit: Submit | None = submit
        if submit(state, False):
            self._submit = None
        self._listens = False  # by what does not hold the stream

    async def _start(self) -> None:
        if self._submit is not None:
            await self._wait_for_place(self._submit)
        if not self._listens:
            self._listens = True
            self._state.listen(functools.partial(_set_in, self._loop, self._news))

    async def _wait_for_place(self, submit: Submit) -> None:
        import asyncio

        state, place = self._state, asyncio.Event()
        wake = functools.partial(_set_in, self._loop, place)
        over = asyncio.Event()
        left, timer = state.time_left, None

        def time_is_over() -> None:
            over.set()
            place.set()

        if left is not None:  # no wait_for(), which can lose a cancellation before Python 3.12
            timer = self._loop.call_later(left, time_is_over)
        try:
            while not (state.begun or state.ended):
                place.clear()
                if state.gate.wait_for_place(wake) and submit(state, True):
                    break
                await place.wait()
                if over.is_set() and not state.ended:
                    state.never_began("end", self._call.timed_out())
            self._submit = None
        finally:
            try:
                state.gate.leave(wake)
            except BaseException:
                state.gate.leave(wake)
                raise
            finally:
                if timer is not None:
                    timer.cancel()

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Chunk:
        state = self._state
        try:
            await self._start()
            while not (state.ended or state.chunks):
                self._news.clear()
                if state.ended or state.chunks:
                    break
                await self._news.wait()
        except BaseException:
            state.cancel()
            raise
        try:
            return chunk_of(state.chunks.popleft(), self._call.n_top)
        except IndexError:
            if state.error is not None:
                raise state.error from None
            raise StopAsyncIteration from None

    @property
    def result(self) -> GenerationResult:
        """The whole result, once the iteration has ended."""
        if not self._state.ended:
            raise RuntimeError("the stream has no result: it is still running")
        return self._finished()

    async def finished(self) -> GenerationResult:
        """Waits for the end, whatever is read of the chunks, and returns the whole result."""
        state = self._state
        try:
            await self._start()
            while not state.ended:
                self._news.clear()
                if state.ended:
                    break
                await self._news.wait()
        except BaseException:
            state.cancel()
            raise
        return self._finished()

    async def aclose(self) -> None:
        """Ends the request and waits until it has ended; may be called again."""
        self._state.cancel()
        if self._submit is not None and not self._state.begun:
            self._submit = None
            closed = ClosedError("the stream was closed before its request began")
            self._state.never_began("error", closed)
        with contextlib.suppress(Exception):
            await self.finished()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


# Hands a request over; whether there was a place. With True by one whose turn it is.
Submit = Callable[[State, bool], bool]
