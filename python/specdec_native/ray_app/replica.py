"""One engine of several: the application of `specdec-native serve`, called instead of served."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.types import Message, Scope

from ..server.app import create_app
from ..server.command import make_engine, named, settings_of

_PIECES_AHEAD = 64  # of an answer, that a slow reader has not taken


class Replica:
    """A deployment of Ray Serve."""

    def __init__(self, args: argparse.Namespace) -> None:
        from ray import serve

        settings = settings_of(args)
        self._engine = make_engine(args, settings)
        self._app = create_app(self._engine, named(settings, args, self._engine))
        self._name = str(serve.get_replica_context().replica_id.unique_id).encode()

    async def answer(
        self, scope: dict[str, Any], body: bytes, *, blocks: list[int], to: str = ""
    ) -> AsyncIterator[Message]:
        """What the application sends, message by message.

        Args:
            scope: of the request, as ASGI has it.
            body: all of it.
            blocks, to: for the router, which chose this replica by them.
        """
        sent: asyncio.Queue[Message | None] = asyncio.Queue(_PIECES_AHEAD)
        gone = asyncio.Event()
        bodies = iter([body])

        async def receive() -> Message:
            for part in bodies:
                return {"type": "http.request", "body": part, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def run() -> None:
            try:
                await self._app(_scope(scope), receive, sent.put)
            finally:
                await sent.put(None)

        work = asyncio.create_task(run())
        try:
            while (message := await sent.get()) is not None:
                if message["type"] == "http.response.start":
                    headers = [*message["headers"], (b"x-specdec-replica", self._name)]
                    message = {**message, "headers": headers}
                yield message
            await work  # raises what the application did
        finally:
            # Nobody reads on: what generates hears of it as of a client that hangs up.
            gone.set()
            while not work.done():
                with contextlib.suppress(asyncio.QueueEmpty):
                    while True:
                        sent.get_nowait()
                await asyncio.wait((work,), timeout=0.05)
            with contextlib.suppress(Exception):
                work.exception()

    def check_health(self) -> None:
        if self._engine.closed:
            raise RuntimeError("the engine is closed")

    def __del__(self) -> None:
        if hasattr(self, "_engine"):
            self._engine.close()


def _scope(told: dict[str, Any]) -> Scope:
    # Of 2.4 on, an application learns only by sending that nobody reads.
    return {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, **told}
