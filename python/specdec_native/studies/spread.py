"""Spreads blocks over processes or a Ray cluster. The tokens are the same; the times are not kept,
because the runs disturb each other."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from .._ray import Spread, ray_cluster
from ..errors import ResourceLimitError
from .engines import Workbench
from .plan import Block, Pair
from .runner import Key, Row, run_block


@dataclass(frozen=True)
class Setup:
    """What a process needs to run blocks."""

    pairs: tuple[Pair, ...]
    n_threads: int | None
    n_ctx: int
    device: str
    seed: int
    common: Mapping[str, Any]


Job = tuple[Block, frozenset[Key]]


def _work(pipe: Connection, setup: Setup) -> None:
    """A process: it ends with its parent, which alone hears Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    bench = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = pipe.recv()
            try:
                bench = bench or _bench(setup)
                pipe.send(_run(bench, setup, job))
            except BrokenPipeError:
                raise
            except Exception as error:
                pipe.send(error)


def _bench(setup: Setup) -> Workbench:
    return Workbench(setup.pairs, n_threads=setup.n_threads, n_ctx=setup.n_ctx, device=setup.device)


def _run(bench: Workbench, setup: Setup, job: Job) -> list[list[Row]]:
    block, done = job
    runs = run_block(bench, block, seed=setup.seed, common=setup.common, done=done, exclusive=False)
    return list(runs)


def over_processes(setup: Setup, jobs: Sequence[Job], n_workers: int) -> Iterator[list[list[Row]]]:
    """The runs of each block, as blocks end.

    Each process has a pipe of its own: one that is killed leaves no lock that others wait for.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(jobs))
    workers: dict[Connection, SpawnProcess] = {}
    try:
        for _ in range(min(n_workers, len(jobs))):
            ours, theirs = context.Pipe()
            workers[ours] = context.Process(target=_work, args=(theirs, setup), daemon=True)
            workers[ours].start()
            theirs.close()
            _send(ours, waiting.pop())
        busy = set(workers)
        while busy:
            for pipe in connection.wait(list(busy)):
                assert isinstance(pipe, Connection)
                done = _receive(pipe)
                if waiting:
                    _send(pipe, waiting.pop())
                else:
                    busy.remove(pipe)
                yield done
    finally:
        for pipe, process in workers.items():
            pipe.close()
            process.terminate()
        for process in workers.values():
            process.join()


def _send(pipe: Connection, job: Job) -> None:
    try:
        pipe.send(job)
    except (BrokenPipeError, ConnectionResetError):
        raise _ended() from None


def _receive(pipe: Connection) -> list[list[Row]]:
    try:
        done = pipe.recv()
    except (EOFError, ConnectionResetError):
        raise _ended() from None
    if isinstance(done, Exception):
        raise done
    runs: list[list[Row]] = done
    return runs


def _ended() -> ResourceLimitError:
    return ResourceLimitError(
        "a process of --workers ended before its work was done: it was killed, or memory ran out; "
        "the same command goes on, fewer workers need less. A script that starts a study must do "
        'so under if __name__ == "__main__"'
    )


def over_ray(setup: Setup, jobs: Sequence[Job], address: str) -> Iterator[list[list[Row]]]:
    """The same on a cluster; the models must be at the same paths on every node."""
    with ray_cluster(address) as cluster:
        setup = replace(setup, n_threads=setup.n_threads or 1)
        threads, n_most = setup.n_threads or 1, max(1, len(jobs))
        spread = Spread(cluster, _RayWorker, (setup,), n_threads=threads, n_most=n_most)
        yield from spread.results(jobs, ordered=False)


class _RayWorker:
    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.bench: Workbench | None = None

    def open(self) -> None:
        self.bench = _bench(self.setup)

    def run(self, job: Job) -> list[list[Row]]:
        assert self.bench is not None
        return _run(self.bench, self.setup, job)
