"""Output as it is made."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Iterator
from types import TracebackType

from . import _core
from ._convert import Call, round_callback, to_chunk, to_result
from .results import Chunk, GenerationResult

_QUEUE_LENGTH = 64  # chunks made but not taken; then the generation waits
_POLL_SECONDS = 0.05


class StreamWorker:
    """Runs one generation on its own thread. Holds no `Stream`, so that one can be dropped."""

    def __init__(self, session: _core.Session, call: Call) -> None:
        self.chunks: queue.Queue[Chunk] = queue.Queue(_QUEUE_LENGTH)
        self.cancel = _core.CancelFlag()
        self.finished = threading.Event()
        self.result: GenerationResult | None = None
        self.error: BaseException | None = None
        self._session = session
        self._call = call
        self.thread = threading.Thread(target=self._run, name="specdec-stream")
        self.thread.start()

    def _run(self) -> None:
        try:
            native = self._session.generate(
                self._call.request,
                on_chunk=self._put,
                on_progress=self._call.on_progress,
                on_round=round_callback(self._call.on_round),
                cancel=self.cancel,
                poll_signals=False,
            )
            self.result = to_result(self._session, native, self._call)
        except BaseException as error:  # handed to the reader
            self.error = error
        finally:
            self.finished.set()

    def _put(self, native: _core.OutputChunk) -> bool:
        chunk = to_chunk(native, self._call)
        while not self.cancel.is_set():
            # The interpreter waits for this thread at exit, so it must end when the main one has.
            if not threading.main_thread().is_alive():
                return False
            try:
                self.chunks.put(chunk, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def wait(self) -> None:
        if threading.current_thread() is not self.thread:
            self.thread.join()


class Stream(Iterator[Chunk]):
    """Iterates over the chunks of a generation that runs on another thread.

    Closing it, leaving its ``with`` block or dropping the last reference ends the generation. An
    error of the generation is raised by the iteration.
    """

    def __init__(self, worker: StreamWorker) -> None:
        self._worker = worker
        self._closed = False
        weakref.finalize(self, worker.cancel.set).atexit = False

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Chunk:
        worker = self._worker
        while not self._closed:
            finished = worker.finished.is_set()  # before looking: nothing comes after it
            try:
                return worker.chunks.get(block=not finished, timeout=_POLL_SECONDS)
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
