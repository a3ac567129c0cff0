"""The line of those who wait for a place in an engine's queue."""

from __future__ import annotations

import functools
import queue
import sys
from collections.abc import Callable

Wake = Callable[[], object]


class Gate:
    """Those who wait for a place in a full queue, in their order.

    No lock: Ctrl-C can come between taking one and what releases it, and the engine's thread, with
    everybody's requests, would wait for it. Each step is one operation of a dict, which nothing
    interrupts. Who leaves the line or is interrupted loses no place for the others, since each of
    them looks again after each change: the first one is called when a place is free and whenever
    one before it has left.
    """

    def __init__(self) -> None:
        self._line: dict[Wake, None] = {}  # in the order of arrival
        # Threads that hold up an event loop while they wait go first: one before them in the line
        # may be a task of that loop, which cannot take its turn until they are gone.
        self._blocking: dict[Wake, None] = {}
        self._closed = False

    @property
    def is_empty(self) -> bool:
        """Whether a newcomer may go ahead."""
        return not self._line and not self._blocking

    def wait_for_place(self, wake: Wake, *, blocks_loop: bool = False) -> bool:
        """Whether it is this one's turn to try. It keeps its place in the line until it leaves.

        Args:
            wake: called, maybe more than once, when it should ask again; False says that nobody is
                there any more, and ends its waiting.
            blocks_loop: an event loop stands still meanwhile.
        """
        (self._blocking if blocks_loop else self._line).setdefault(wake)
        # After it is in the line: whoever closes or leaves now sees it there.
        return self._closed or self._first() is wake  # or else be refused

    def leave(self, wake: Wake) -> None:
        """With a place or without; an interrupted call is to be repeated. The next one tries in any
        case: whether `wake` was called for a place that this one does not take cannot be told, and
        one try too many does no harm."""
        self._line.pop(wake, None)
        self._blocking.pop(wake, None)
        self.place_is_free()

    def place_is_free(self) -> None:
        while (first := self._first()) is not None and first() is False:
            self._line.pop(first, None)

    def close(self) -> None:
        self._closed = True
        for wake in [*list(self._blocking), *list(self._line)]:
            wake()

    def wait(self, attempt: Callable[[], bool], time_left: Callable[[], float | None]) -> bool:
        """Of a thread: whether its `attempt` succeeded before there was no time left."""
        # No Condition: an interrupted wait in its Python code can leave its lock held.
        place: queue.SimpleQueue[None] = queue.SimpleQueue()
        wake = functools.partial(place.put, None)  # one object: it is known by that
        blocks = _runs_event_loop()
        try:
            while True:
                if self.wait_for_place(wake, blocks_loop=blocks) and attempt():
                    return True
                try:
                    place.get(timeout=time_left())
                except queue.Empty:
                    return False
        finally:
            try:
                self.leave(wake)
            except BaseException:
                self.leave(wake)
                raise

    def _first(self) -> Wake | None:
        # A copy in one step: another thread may change the dict while an iterator is made of it.
        line = list(self._blocking) or list(self._line)
        return line[0] if line else None


def _runs_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")  # not imported for this
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
