"""Prompts from a file of one's own, Spec-Bench or HumanEval, for studies that take any of them."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib

from ..errors import InvalidArgumentError
from . import benchmark_data
from .data import own_prompts
from .plan import Task


def add_prompt_sources(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("prompts", type=pathlib.Path, nargs="?", help="own prompts, as of the study mine")
    add("--spec-bench", type=pathlib.Path, metavar="FILE")
    add("--humaneval", type=pathlib.Path, metavar="FILE")
    add_turns(parser)


def add_turns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--turns", type=int, metavar="N", help="of each conversation, at most (default all)"
    )


def first_turns(args: argparse.Namespace, task: Task) -> Task:
    if args.turns is not None and args.turns < 1:
        raise InvalidArgumentError(f"--turns must be at least 1, not {args.turns}")
    return dataclasses.replace(task, turns=task.turns[: args.turns])


def tasks_of(args: argparse.Namespace, *, has_template: bool) -> dict[str, list[Task]]:
    """Prompts by kind."""
    tasks: list[Task] = []
    if args.prompts is not None:
        tasks += [
            task if task.category else dataclasses.replace(task, category="own")
            for task in own_prompts(args.prompts)
        ]
    if args.spec_bench is not None:
        tasks += [task for task, _ in benchmark_data.spec_bench(args.spec_bench)]
    if args.humaneval is not None:
        tasks += [t for t, _ in benchmark_data.humaneval(args.humaneval, chat=has_template)]
    if not tasks:
        raise InvalidArgumentError("no prompts: give a file, --spec-bench or --humaneval")
    kinds: dict[str, list[Task]] = {}
    for task in tasks:
        kinds.setdefault(task.category, []).append(first_turns(args, task))
    return kinds
