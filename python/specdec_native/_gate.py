"""The line of those who wait for a place in an engine's queue."""

from __future__ import annotations

import bisect
import contextlib
import functools
import queue
import threading
from collections.abc import Callable


class Gate:
    """Those who wait for a place in a full queue, in their order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrivals: dict[Callable[[], None], int] = {}  # of all who have not left
        self._n_arrived = 0
        self._waiting: list[Callable[[], None]] = []  # of them, those who were not woken
        self._closed = False

    @property
    def is_empty(self) -> bool:
        """Whether a newcomer may go ahead."""
        return not self._waiting

    def wait_for_place(self, wake: Callable[[], None]) -> bool:
        """Whether it is this one's turn to try. Who was faster than one whose turn it was does not
        change its place in the line.

        Args:
            wake: called once, when there may be a place.
        """
        with self._lock:
            if self._closed:
                return True  # and be refused
            if wake not in self._arrivals:
                self._arrivals[wake] = self._n_arrived
                self._n_arrived += 1
            bisect.insort(self._waiting, wake, key=self._arrivals.__getitem__)
            return self._waiting[0] is wake

    def leave(self, wake: Callable[[], None]) -> None:
        """With a place or without. The next one tries in any case: whether `wake` was called for a
        place that this one does not take cannot be told, and one try too many does no harm."""
        with self._lock:
            self._arrivals.pop(wake, None)
            with contextlib.suppress(ValueError):
                self._waiting.remove(wake)
        self.place_is_free()

    def place_is_free(self) -> None:
        with self._lock:
            wake = self._waiting.pop(0) if self._waiting else None
        if wake is not None:
            wake()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def wait(self, attempt: Callable[[], bool], time_left: Callable[[], float | None]) -> bool:
        """Of a thread: whether its `attempt` succeeded before there was no time left."""
        # No Condition: an interrupted wait in its Python code can leave its lock held.
        place: queue.SimpleQueue[None] = queue.SimpleQueue()
        wake = functools.partial(place.put, None)  # one object: it is known by that
        try:
            while True:
                if self.wait_for_place(wake) and attempt():
                    return True
                try:
                    place.get(timeout=time_left())
                except queue.Empty:
                    return False
        finally:
            self.leave(wake)
