"""A Ray cluster, for the commands that spread their work."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ._extras import missing
from .errors import InvalidArgumentError, ResourceLimitError, SpecdecError

_TRIES = 3
_MOMENT = 0.2  # seconds between two looks at signals


@contextmanager
def ray_cluster(address: str) -> Iterator[tuple[Any, Stops]]:
    """The module `ray`, connected to the cluster there; "local" starts one on this computer. And
    the signals that are noted meanwhile.

    Raises:
        InvalidArgumentError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise missing("--ray", "ray", error) from None
    before = {}
    if threading.current_thread() is threading.main_thread():
        both = (signal.SIGINT, signal.SIGTERM)
        found = {number: signal.getsignal(number) for number in both}
        before = {number: handler for number, handler in found.items() if handler is not None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own versions to come
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidArgumentError(f"--ray {address}: no cluster there: {first}") from None
    stops = Stops(before)
    try:
        yield ray, stops
    finally:
        stops.restore()
        ray.shutdown()


class Stops:
    """Signals that end the program, noted while Ray is at work.

    Ray's own handler of SIGTERM ends the process there, and what a handler raises in the midst of
    Ray's native code may get lost. The second one does as it would without Ray.
    """

    def __init__(self, handlers: dict[signal.Signals, Any]) -> None:
        self._handlers = handlers
        self._received: int | None = None
        for number in handlers:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        if self._received is not None:
            self._pass_on(number)
        self._received = number

    def check(self) -> None:
        """Raises what the first signal's handler raises."""
        if self._received is not None:
            self._pass_on(self._received)

    def _pass_on(self, number: int) -> None:
        self.restore()
        signal.raise_signal(number)

    def restore(self) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._note:  # else what it did is meant to stay
                signal.signal(number, handler)


def cores_of_nodes(ray: Any) -> list[int]:
    """Of nodes that have any."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return [cores for node in nodes if (cores := int(node["Resources"].get("CPU", 0))) > 0] or [1]


class Spread:
    """Tasks over workers of a cluster.

    A worker is an actor with the methods `open`, which loads what it needs, and `run`, which does
    a task. Workers begin as the cluster has room for them; one that dies is replaced, and its task
    is done again.

    Args:
        cluster: of `ray_cluster`.
        kind: class of the workers.
        arguments: of its constructor.
        n_threads: cores that each one takes.
        n_most: no more workers than that.

    Raises:
        InvalidArgumentError: no node has so many cores.
    """

    def __init__(
        self,
        cluster: tuple[Any, Stops],
        kind: type,
        arguments: tuple[Any, ...],
        *,
        n_threads: int,
        n_most: int | None = None,
    ) -> None:
        ray, self._stops = cluster
        places = sum(cores // n_threads for cores in cores_of_nodes(ray))
        if places == 0:
            raise InvalidArgumentError(
                f"each worker has {n_threads} threads, and no node of the cluster has so many "
                f"cores: expected at most {max(cores_of_nodes(ray))}"
            )
        self._ray = ray
        self._make: Callable[[], Any] = lambda: ray.remote(num_cpus=n_threads)(kind).remote(
            *arguments
        )
        self.n_workers = places if n_most is None else min(places, n_most)
        self._starting: dict[Any, Any] = {}
        self._running: dict[Any, tuple[Any, int, Any]] = {}
        self._idle: list[Any] = []
        self._again: deque[tuple[int, Any]] = deque()
        self._deaths: Counter[int] = Counter()
        self._failed_starts = 0

    def results(self, tasks: Iterable[Any], *, ordered: bool) -> Iterator[Any]:
        """Of each task: in order, or as they end.

        Raises:
            SpecdecError: what a worker raised; or workers die one after the other.
        """
        for _ in range(self.n_workers):
            self._start()
        left = enumerate(tasks)
        n_given = 0
        done: dict[int, Any] = {}
        more = True
        while True:
            # Not too far ahead of what is given out: the input may be long.
            while self._idle and (self._again or (more and len(done) < 4 * self.n_workers)):
                job = self._again.popleft() if self._again else next(left, None)
                if job is None:
                    more = False
                    break
                worker = self._idle.pop()
                self._running[worker.run.remote(job[1])] = (worker, *job)
            if not (more or self._running or self._again):
                return
            for index, result in self._ended():
                done[index] = result
            for index in () if ordered else list(done):
                yield done.pop(index)
            while n_given in done:
                yield done.pop(n_given)
                n_given += 1

    def _start(self) -> None:
        worker = self._make()
        self._starting[worker.open.remote()] = worker

    def _ended(self) -> Iterator[tuple[int, Any]]:
        """Waits for the next worker that is ready, done or dead, for a moment."""
        self._stops.check()
        awaited = [*self._running, *self._starting]
        for reference in self._ray.wait(awaited, num_returns=1, timeout=_MOMENT)[0]:
            try:
                result = self._ray.get(reference)
            except self._ray.exceptions.RayActorError:
                self._died(reference)
            except self._ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, SpecdecError):
                    raise error.cause from None
                raise
            else:
                if reference in self._starting:
                    self._idle.append(self._starting.pop(reference))
                else:
                    worker, index, _ = self._running.pop(reference)
                    self._idle.append(worker)
                    yield index, result

    def _died(self, reference: Any) -> None:
        if reference in self._starting:
            del self._starting[reference]
            self._failed_starts += 1
            if self._failed_starts >= _TRIES:
                raise ResourceLimitError(
                    "workers of the cluster die before they have loaded the model: memory ran "
                    "out, or files or packages are missing there"
                )
        else:
            _, index, task = self._running.pop(reference)
            self._deaths[index] += 1
            if self._deaths[index] >= _TRIES:
                raise ResourceLimitError(
                    f"{_TRIES} workers of the cluster died over the same task: they were killed, "
                    "or memory ran out"
                )
            self._again.append((index, task))
        self._start()
