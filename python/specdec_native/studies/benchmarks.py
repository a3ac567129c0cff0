"""`spec-bench`, `speed-bench`, `humaneval`: the prompt sets that the field compares itself on."""

from __future__ import annotations

import argparse
import pathlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from . import benchmark_data
from .benchmark_report import DIFFERENCES, report_of
from .engines import Workbench
from .methods import HELP, fitting, parse_methods, possible, sampling_of
from .plan import Block, Scalar, Task
from .prompt_sources import add_turns, first_turns
from .report import Report
from .runner import Row
from .study import Study, spread_out

Entry = tuple[Task, dict[str, Scalar]]  # with further columns of its rows


class Benchmark(Study):
    """A file of prompts in categories, a table per category."""

    title: ClassVar[str]
    defaults: ClassVar[dict[str, Any]] = {"rounds": 3, "max_tokens": 256}

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "file", type=pathlib.Path, help=f"{self.title}'s prompts: its public file"
        )
        parser.add_argument(
            "--methods", default="plain,auto,ngram,suffix,recycling,model", metavar="LIST",
            help=HELP,
        )  # fmt: skip
        parser.add_argument("--temperature", type=float, default=0.0, help="default 0")
        add_turns(parser)

    @abstractmethod
    def read(self, path: pathlib.Path, *, has_template: bool) -> list[Entry]: ...

    def blocks(self, args: argparse.Namespace, workbench: Workbench) -> Iterable[Block]:
        sampling = sampling_of(args.temperature)
        for pair in args.pairs:
            has_template = workbench.target(pair).chat_template is not None
            entries = self.read(args.file, has_template=has_template)
            methods = possible(args, workbench, pair, parse_methods(args.methods))
            axes = {task.id: more for task, more in entries}
            kinds: dict[str, list[Task]] = {}
            tasks = [first_turns(args, task) for task, _ in entries]
            for task in fitting(args, workbench, pair, tasks):
                kinds.setdefault(task.category, []).append(task)
            for kind in kinds.values():
                for task in spread_out(kind, args.limit):
                    yield Block(
                        pair, task, methods, args.max_tokens, args.rounds, sampling=sampling,
                        axes=axes[task.id],
                    )  # fmt: skip

    def report(self, rows: Sequence[Row], args: argparse.Namespace) -> Report:
        return report_of(self.title, rows, DIFFERENCES[self.name])


class SpecBench(Benchmark):
    name = "spec-bench"
    title = "Spec-Bench"

    def read(self, path: pathlib.Path, *, has_template: bool) -> list[Entry]:
        return benchmark_data.spec_bench(path)


class SpeedBench(Benchmark):
    name = "speed-bench"
    title = "SPEED-Bench"

    def read(self, path: pathlib.Path, *, has_template: bool) -> list[Entry]:
        return benchmark_data.speed_bench(path)


class HumanEval(Benchmark):
    name = "humaneval"
    title = "HumanEval"

    def read(self, path: pathlib.Path, *, has_template: bool) -> list[Entry]:
        return benchmark_data.humaneval(path, chat=has_template)
