"""Runs a server until a signal: the first lets what runs come to its end, the second ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from ..engine import Engine

_LAST_WORDS_SECONDS = 2.0  # for the ends of streams to be read

logger = logging.getLogger("uvicorn.error")


class Service(uvicorn.Server):
    """uvicorn's own way to end at once cancels tasks, and logs a traceback of each.

    Args:
        config: of uvicorn; without a `timeout_graceful_shutdown`.
        engine: closed when what runs is to end at once.
        grace: seconds from the first signal until that; None: as long as it takes.
    """

    def __init__(self, config: uvicorn.Config, engine: Engine, grace: float | None) -> None:
        super().__init__(config)
        self._engine = engine
        self._grace = grace
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hurry: asyncio.Task[None] | None = None
        self._is_hurrying = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)
        if self._hurry is not None:
            await self._hurry

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            super().handle_exit(sig, frame)
            if self._grace is not None and self._loop is not None:
                self._loop.call_soon_threadsafe(
                    self._loop.call_later, self._grace, self._start_to_hurry
                )
        elif not self._is_hurrying and self._loop is not None:
            self._is_hurrying = True  # here, not in the loop: it may be stuck
            self._loop.call_soon_threadsafe(self._start_to_hurry)
        else:
            signal.signal(sig, signal.SIG_DFL)
            os.kill(os.getpid(), sig)

    def _start_to_hurry(self) -> None:
        self._is_hurrying = True
        if self._hurry is None and self._loop is not None:
            self._hurry = self._loop.create_task(self._end_all())

    async def _end_all(self) -> None:
        """Generations end as "cancelled" ones, and streams say so to those who read them."""
        logger.info("Ending what still runs")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._engine.close)
        deadline = loop.time() + _LAST_WORDS_SECONDS
        while self.server_state.connections and loop.time() < deadline:
            await asyncio.sleep(0.05)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
