"""Connections of strangers: how many, how long they may take, and what they are told.

uvicorn waits for ever for the rest of a request, and for a reader of an answer.
"""

from __future__ import annotations

import asyncio
import json
import math
import resource
from dataclasses import dataclass
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from .errors import ApiError

BACKLOG = 128  # accepted in one turn of the loop
# Descriptors for the model, logs, events; and for connections on their way to being refused.
_SPARE_FILES = 64 + 3 * BACKLOG


@dataclass(frozen=True)
class Limits:
    """Of connections.

    Attributes:
        connections: open at once. One more takes the place of one that waits for a request, or is
            refused with 503.
        read_seconds: within which a request must be here whole, from the connection or its first
            byte on.
        write_seconds: without a byte taken, after which a reader is given up.
    """

    connections: int = 512
    read_seconds: float = 60.0
    write_seconds: float = 120.0


def with_enough_files(limits: Limits) -> Limits:
    """As many connections as this process can have: raises its own limit of files if need be."""
    wanted = limits.connections + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    if soft != infinite and soft < wanted:
        soft = wanted if hard == infinite else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == infinite or soft >= wanted:
        return limits
    n = max(1, soft - _SPARE_FILES)
    return Limits(n, limits.read_seconds, limits.write_seconds)


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """For `uvicorn.Config(http=...)`."""
    return cast("type[asyncio.Protocol]", type("Watched", (_Watched,), {"limits": limits}))


class _Watched(H11Protocol):
    limits: Limits
    _since = 0.0
    _read_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _unwritten = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._since = self.loop.time()
        if len(self.connections) >= self.limits.connections and not self._make_way():
            message = f"more than {self.limits.connections} connections; try again"
            transport.write(_raw(ApiError(503, message, code="too_many_connections")))
            transport.close()
            self.transport = transport  # for what may still arrive
            return
        super().connection_made(transport)
        self._watch_reading()

    def _make_way(self) -> bool:
        """Ends the connection that waits longest for a request; False: all are at work."""
        idle = [c for c in self.connections if isinstance(c, _Watched) and not c._is_answering()]
        if not idle:
            return False
        first = min(idle, key=lambda connection: connection._since)
        self.connections.discard(first)
        first.transport.abort()
        return True

    def _is_answering(self) -> bool:
        """A request is here whole, and its answer is not given yet."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def data_received(self, data: bytes) -> None:
        if self.flow is None or self.transport.is_closing():
            return
        super().data_received(data)
        self._watch_reading()

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()
        self._watch_writing()
        if not self.transport.is_closing():
            self._watch_reading()

    def _watch_reading(self) -> None:
        """A timer runs exactly while (a part of) a request is waited for.

        It is not wound up by further bytes. Between requests uvicorn's own runs, until the first
        byte, which may have come together with the request before it.
        """
        begun, _ = self.conn.trailing_data
        between = self.timeout_keep_alive_task is not None and not begun
        if self._is_answering() or between or self.transport.is_closing():
            self._stop_reading_timer()
        elif self._read_timer is None:
            self._read_timer = self.loop.call_later(self.limits.read_seconds, self._read_too_late)

    def _stop_reading_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _read_too_late(self) -> None:
        self._read_timer = None
        if self._is_answering() or self.transport.is_closing():
            return
        seconds = self.limits.read_seconds
        self._refuse(ApiError(408, f"no whole request within {seconds:g} s", code="timeout"))

    def _refuse(self, error: ApiError) -> None:
        cycle = self.cycle
        if cycle is None or not cycle.response_started or self._is_between(cycle):
            self.transport.write(_raw(error))
        self.transport.close()
        self._watch_writing()

    @staticmethod
    def _is_between(cycle: RequestResponseCycle) -> bool:
        return cycle.response_complete and not cycle.more_body

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, "this is no HTTP request, or its head is too long", code="http"))

    def _should_upgrade(self) -> bool:
        return False  # there are no WebSockets here, and nothing to say in the log

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unwritten = math.inf

    def _watch_writing(self) -> None:
        """A timer runs from the first byte that is not taken at once, until all are."""
        self._unwritten = math.inf
        if self._write_timer is None and self.transport.get_write_buffer_size() > 0:
            self._wait_for_reader()

    def _wait_for_reader(self) -> None:
        seconds = self.limits.write_seconds / 2  # seen twice in the same state
        self._write_timer = self.loop.call_later(seconds, self._look_at_reader)

    def _look_at_reader(self) -> None:
        self._write_timer = None
        size = self.transport.get_write_buffer_size()
        # While more is being written the size says nothing.
        is_still = self.flow.write_paused or not self._is_answering()
        if size == 0:
            return
        if is_still and size >= self._unwritten:
            self.transport.abort()
            return
        self._unwritten = size if is_still else math.inf
        self._wait_for_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_reading_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if self.flow is not None:  # not refused at once
            super().connection_lost(exc)


def _raw(error: ApiError) -> bytes:
    """An answer outside of any request."""
    body: Any = json.dumps(error.body()).encode()
    head = (
        f"HTTP/1.1 {error.status} {_PHRASES[error.status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + cast("bytes", body)


_PHRASES = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}
