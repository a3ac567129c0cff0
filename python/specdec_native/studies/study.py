"""What a study is, and which there are."""

from __future__ import annotations

import argparse
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, TypeVar

from ..errors import InvalidArgumentError
from .engines import Workbench
from .plan import Block
from .report import Report
from .runner import Row

# name: (module, class, what `specdec-native study` says about it)
STUDIES: dict[str, tuple[str, str, str]] = {
    "mine": (
        "mine",
        "Mine",
        "which drafter is fastest on my prompts, and the settings to write down",
    ),
    "spec-bench": (
        "benchmarks",
        "SpecBench",
        "the prompts of Spec-Bench: speed-up per task, beside its own protocol's figure",
    ),
    "speed-bench": (
        "benchmarks",
        "SpeedBench",
        "the prompts of SPEED-Bench: speed-up and acceptance per domain",
    ),
    "humaneval": (
        "benchmarks",
        "HumanEval",
        "the functions of HumanEval",
    ),
    "edits": (
        "edits",
        "Edits",
        "code-editing sessions: the whole file back, turn after turn",
    ),
    "peers": (
        "peers",
        "Peers",
        "the same prompts and files through llama.cpp and transformers, in the same minutes",
    ),
    "adversarial": (
        "adversarial",
        "Adversarial",
        "a draft model that is always wrong: what it costs at the worst",
    ),
    "topk-importance": (
        "topk_importance",
        "TopkImportance",
        "candidates from the draft's best K, the published rule beside its lossless form",
    ),
    "samplers": (
        "samplers",
        "Samplers",
        "greedy, multinomial, top-k and noise, times plain, speculative and n-gram decoding",
    ),
    "pairs": (
        "pairs",
        "Pairs",
        "pairs of models on three prompts: greedy and sampled drafts, with and without caches",
    ),
    "sweep": (
        "sweep",
        "Sweep",
        "prompt length, output length and draft length, one at a time",
    ),
}

Item = TypeVar("Item")


class Study(ABC):
    """A frozen configuration: what is run, and what is made of the rows.

    Attributes:
        name: as in `STUDIES`.
        needs_draft: does it make no sense without a draft model?
        defaults: of the shared options, where a study has its own: rounds, max_tokens, limit, ctx,
            out.
        free: its own options that do not change what is run.
        extra: modules it imports beyond those that every study does.
    """

    name: ClassVar[str]
    needs_draft: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]] = {}
    free: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[tuple[str, ...]] = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:  # noqa: B027
        """Options of its own. They may not be called as a shared one."""

    @abstractmethod
    def blocks(self, args: argparse.Namespace, workbench: Workbench) -> Iterable[Block]:
        """What to run. The same arguments give the same blocks; `args.notes` takes what a reader
        should know, such as prompts that were left out and why."""

    def columns(self, row: Row) -> Row:
        """Further columns that follow from what a tidy row holds; the same keys for every row."""
        return {}

    @abstractmethod
    def report(self, rows: Sequence[Row], args: argparse.Namespace) -> Report:
        """Of tidy rows (figures.tidy), perhaps not yet all."""

    def files(self, rows: Sequence[Row], args: argparse.Namespace) -> None:  # noqa: B027
        """Writes what else belongs into the folder `args.out`."""


def find_study(name: str) -> Study:
    if name not in STUDIES:
        raise InvalidArgumentError(f"there is no study {name!r}; there are {', '.join(STUDIES)}")
    module, kind, _ = STUDIES[name]
    study: Study = getattr(importlib.import_module(f".{module}", __package__), kind)()
    return study


def spread_out(items: Sequence[Item], count: int | None) -> list[Item]:
    """`count` of them at even distances; all for None."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
