"""Spreads blocks over processes or a Ray cluster. The tokens are the same; the times are not kept,
because the runs disturb each other."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidArgumentError, ResourceLimitError
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
_bench: Workbench | None = None
_setup: Setup | None = None


def _start(setup: Setup) -> None:
    """In each process: it ends with its parent, which alone hears Ctrl-C."""
    global _bench, _setup
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _setup = setup
    _bench = Workbench(
        setup.pairs, n_threads=setup.n_threads, n_ctx=setup.n_ctx, device=setup.device
    )


def _work(job: Job) -> list[list[Row]]:
    assert _bench is not None
    assert _setup is not None
    return _run(_bench, _setup, job)


def _run(bench: Workbench, setup: Setup, job: Job) -> list[list[Row]]:
    block, done = job
    runs = run_block(bench, block, seed=setup.seed, common=setup.common, done=done, exclusive=False)
    return list(runs)


def over_processes(setup: Setup, jobs: Sequence[Job], n_workers: int) -> Iterator[list[list[Row]]]:
    """The runs of each block, as blocks end."""
    context = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    with context.Pool(n_workers, initializer=_start, initargs=(setup,)) as pool:
        workers = set(multiprocessing.active_children()).difference(others)
        results = pool.imap_unordered(_work, jobs)
        while True:
            try:
                yield results.next(timeout=1)
            except StopIteration:
                return
            except multiprocessing.TimeoutError:
                # A pool replaces a process that died, and waits for its result for ever.
                if len(workers.intersection(multiprocessing.active_children())) < n_workers:
                    raise ResourceLimitError(
                        "a process of --workers ended before its work was done: it was killed, or "
                        "memory ran out; the same command goes on, fewer workers need less. A "
                        'script that starts a study must do so under if __name__ == "__main__"'
                    ) from None


def over_ray(setup: Setup, jobs: Sequence[Job], address: str) -> Iterator[list[list[Row]]]:
    """The same on a cluster; the models must be at the same paths on every node."""
    try:
        import ray
    except ImportError:
        raise InvalidArgumentError(
            "--ray needs the package ray: pip install 'specdec-native[ray]'"
        ) from None
    try:
        ray.init(address=None if address == "local" else address, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidArgumentError(f"--ray {address}: no cluster there: {first}") from None
    try:
        n_workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        worker: Callable[..., Any] = ray.remote(num_cpus=1)(_RayWorker)
        pool = ray.util.ActorPool(
            [worker.remote(setup) for _ in range(min(n_workers, len(jobs)))]  # type: ignore[attr-defined]
        )
        yield from pool.map_unordered(lambda actor, job: actor.run.remote(job), jobs)
    finally:
        ray.shutdown()


class _RayWorker:
    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.bench = Workbench(
            setup.pairs, n_threads=setup.n_threads, n_ctx=setup.n_ctx, device=setup.device
        )

    def run(self, job: Job) -> list[list[Row]]:
        return _run(self.bench, self.setup, job)
