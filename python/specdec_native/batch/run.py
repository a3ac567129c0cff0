"""Works lines off, in order, on one engine or on several."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .._engine_options import check_template
from .._ray import Spread, cores_of_nodes, ray_cluster
from ..engine import Engine
from ..errors import MissingExtraError, SpecdecError
from ..model import Model
from ..requests import Request
from .lines import Line, answer, refusal, submit

_LINES_OF_A_TASK = 16


@dataclass(frozen=True)
class Setup:
    """What every worker needs to begin: paths, not models."""

    model: str
    draft: str | None
    loading: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)

    def make_engine(self) -> Engine:
        model = Model(self.model, **self.loading)
        check_template(model, self.defaults.get("template"))
        draft = None if self.draft is None else Model(self.draft, **self.loading)
        return Engine(model, draft=draft, when_full="wait", **self.engine)


def over_one(setup: Setup, lines: Iterator[Line]) -> Generator[bytes]:
    """Lines of the output, each as soon as those before it are done."""
    with setup.make_engine() as engine:
        ahead = 2 * int(setup.engine.get("max_requests", 16))
        yield from _work(engine, lines, setup.defaults, ahead)


def _work(
    engine: Engine, lines: Iterator[Line], defaults: dict[str, Any], ahead: int
) -> Iterator[bytes]:
    waiting: deque[tuple[Line, Request | SpecdecError]] = deque()
    more = True
    while more or waiting:
        while more and len(waiting) < ahead:
            line = next(lines, None)
            if line is None:
                more = False
                break
            try:
                waiting.append((line, submit(engine, line, defaults)))
            except MissingExtraError:
                raise  # not the line's fault
            except SpecdecError as error:
                waiting.append((line, error))
        if waiting:
            line, request = waiting.popleft()
            yield _told(line, request)


def _told(line: Line, request: Request | SpecdecError) -> bytes:
    try:
        if isinstance(request, SpecdecError):
            raise request
        return answer(line, request.result())
    except SpecdecError as error:
        return refusal(line, error)


class Worker:
    """One engine of several, in a process of its own."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._engine: Engine | None = None

    def open(self) -> None:
        self._engine = self._setup.make_engine()

    def run(self, lines: Sequence[Line]) -> list[bytes]:
        assert self._engine is not None
        return list(_work(self._engine, iter(lines), self._setup.defaults, len(lines)))


def over_ray(setup: Setup, lines: Iterator[Line], address: str) -> Generator[bytes]:
    """The same on a Ray cluster; the files must be at the same paths on every node.

    Raises:
        InvalidArgumentError: Ray is not installed, or there is no cluster.
    """
    with ray_cluster(address) as cluster:
        # As large as the smallest node: an engine has use for all its cores.
        threads = setup.loading.get("n_threads") or min(cores_of_nodes(cluster[0]))
        setup = replace(setup, loading={**setup.loading, "n_threads": threads})
        spread = Spread(cluster, Worker, (setup,), n_threads=threads)
        tasks = iter(lambda: list(itertools.islice(lines, _LINES_OF_A_TASK)), [])
        for done in spread.results(tasks, ordered=True):
            yield from done
