"""Output as it is made."""

from __future__ import annotations

import contextlib
import queue
import threading
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from . import _core
from ._convert import Call, round_callback, to_chunk, to_result
from .model import refuse_copy
from .results import Chunk, GenerationResult

_QUEUE_LENGTH = 64  # chunks made but not taken; then the generation waits
_POLL_SECONDS = 0.05


class StreamWorker:
    """Runs one generation on its own thread. Holds no `Stream`, so that one can be dropped."""

    def __init__(self, call: Call) -> None:
        # Not queue.Queue: an interrupted wait in its Python code can leave its lock held, or fail
        # with RuntimeError. These have none. `_room` holds a permit for each chunk that fits.
        self.chunks: queue.SimpleQueue[Chunk] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(_QUEUE_LENGTH):
            self._room.put(None)
        self.cancel = call.cancel
        self.finished = False
        self.result: GenerationResult | None = None
        self.error: BaseException | None = None
        self._call = call
        self._begin = threading.Lock()  # whoever gets it decides whether the work begins
        self.thread = threading.Thread(target=self._run, name="specdec-stream")

    @property
    def open(self) -> bool:
        """Whether there is something left to read, and nobody gave it up."""
        return not (self.finished or self.cancel.is_set())

    def _run(self) -> None:
        if not self._begin.acquire(blocking=False):
            return
        call = self._call
        try:
            native = call.session.generate(
                call.request,
                on_chunk=self._put,
                on_progress=self._progress,
                on_round=round_callback(call.on_round),
                cancel=self.cancel,
                poll_signals=False,
            )
            self.result = to_result(call.session, native, call)
        except BaseException as error:  # handed to the reader
            self.error = error
        finally:
            self.finished = True

    def _progress(self, n_read: int, n_total: int) -> None:
        self._end_with_the_interpreter()
        if self._call.on_progress is not None:
            self._call.on_progress(n_read, n_total)

    def _put(self, native: _core.OutputChunk) -> bool:
        chunk = to_chunk(native, self._call)
        while not self.cancel.is_set():
            self._end_with_the_interpreter()
            try:
                self._room.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            self.chunks.put(chunk)
            return True
        return False

    def take(self) -> Chunk:
        """The next chunk; queue.Empty where none comes for a while, at once if none will."""
        chunk = self.chunks.get(block=not self.finished, timeout=_POLL_SECONDS)
        self._room.put(None)
        return chunk

    def _end_with_the_interpreter(self) -> None:
        # It waits for this thread at exit, so this thread must end when the main one has.
        if not threading.main_thread().is_alive():
            self.cancel.set()

    def wait(self) -> None:
        """Until nothing runs any more. `cancel` must be set, or the work finished."""
        if self._begin.acquire(blocking=False):  # not begun: then it never will
            self.finished = True
        elif threading.current_thread() is not self.thread:
            with contextlib.suppress(RuntimeError):  # never started
                self.thread.join()


class Stream(_core.StreamBase):
    """Iterates over the chunks of a generation that runs on another thread.

    Closing it, leaving its ``with`` block, dropping the last reference and an exception while it
    waits for the next chunk (Ctrl-C, most of all) end the generation: then the decoder can be used
    again. An error of the generation is raised by the iteration. Several threads may read one.
    """

    def __init__(self, worker: StreamWorker) -> None:
        super().__init__(worker.cancel)
        self._worker = worker
        self._closed = False

    def __iter__(self) -> Stream:
        return self

    # Native, so that no KeyboardInterrupt comes between the caller and what ends the generation.
    if TYPE_CHECKING:

        def __next__(self) -> Chunk: ...

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None,
        ) -> None: ...

    def _take(self) -> Chunk:
        """What __next__ does."""
        worker = self._worker
        while not self._closed:
            finished = worker.finished  # before looking: nothing comes after it
            try:
                return worker.take()
            except queue.Empty:
                if finished:
                    break
        self.close()
        if worker.error is not None:
            error, worker.error = worker.error, None
            raise error
        raise StopIteration

    @property
    def result(self) -> GenerationResult:
        """The whole result, once the iteration has ended or the stream was closed."""
        if self._worker.result is None:
            raise RuntimeError("the stream has no result: it is still running, or it failed")
        return self._worker.result

    def close(self) -> None:
        """Ends the generation and waits until the decoder is free; may be called again."""
        self._closed = True
        self._worker.cancel.set()
        self._worker.wait()

    def __enter__(self) -> Stream:
        return self

    def __reduce__(self) -> NoReturn:
        refuse_copy("Stream")

    def __copy__(self) -> NoReturn:
        refuse_copy("Stream")

    def __deepcopy__(self, memo: object) -> NoReturn:
        refuse_copy("Stream")
