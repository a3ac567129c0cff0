"""`samplers`: ways to choose a token, times ways to decode; the study of a chat-like evaluation."""

from __future__ import annotations

import argparse
import csv
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from ..errors import InvalidArgumentError
from . import data_sets, text_metrics
from .data_sets import Sample
from .engines import Workbench
from .plan import PLAIN, Block, Method, Pair, Scalar, Task, plain
from .questions import QUESTIONS
from .report import Report
from .runner import Row
from .sampler_tables import report_of
from .store import whole_file
from .study import Study, spread_out

# Tables and the CSV call them as the system that the study comes from.
MODELS = {PLAIN: "autoregressive", "speculative": "speculative", "ngram": "ngram"}
SWEEP_PROMPT = "Finish this sentence: Artificial intelligence has transformed the way we"
CSV_COLUMNS = ("question", "answer", "temperature", "model", "processor", "output", "score",
               "acceptance_rate", "tokens_per_sec", "noise_scale", "pair")  # fmt: skip


class Samplers(Study):
    name = "samplers"
    defaults: ClassVar[dict[str, Any]] = {"rounds": 1, "max_tokens": 40, "ctx": 1024}
    extra = text_metrics.PACKAGES

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--questions", type=pathlib.Path, metavar="FILE",
            help="CSV or JSON with question and answer (default: 30 of our own)")  # fmt: skip
        add("--temperature", type=float, default=0.8, help="but for greedy (default %(default)s)")
        add("--top-k", type=int, default=10, metavar="K", help="default %(default)s")
        add("--noises", type=float, nargs="+", default=[0.3, 0.6, 0.9], metavar="S",
            help="scales of two-stage noise, besides 0 (default 0.3 0.6 0.9)")  # fmt: skip
        add(
            "--gamma", type=int, default=4, metavar="N", help="tokens drafted (default %(default)s)"
        )
        add("--orders", type=int, nargs="+", default=[3, 2, 4, 5], metavar="N",
            help="of n-grams; the first is used everywhere, the others with greedy decoding "
            "(default 3 2 4 5)")  # fmt: skip
        add("--fillers", type=int, nargs="+", default=[3, 1], metavar="N",
            help="filler_top_k, the same way (default 3 1)")  # fmt: skip
        add("--min-counts", type=int, nargs="+", default=[1, 2], metavar="N",
            help="the same way (default 1 2)")  # fmt: skip
        add("--sweep-tokens", type=int, default=200, metavar="N",
            help="of the noise sweep's texts (default %(default)s)")  # fmt: skip
        add("--sweep-rounds", type=int, default=3, metavar="N",
            help="seeds of the noise sweep (default %(default)s)")  # fmt: skip

    def blocks(self, args: argparse.Namespace, workbench: Workbench) -> Iterable[Block]:
        _check(args)
        tasks = spread_out(list(_questions(args)), args.limit)
        sweep = Task("noise sweep", (SWEEP_PROMPT,), "noise sweep", "chat")
        for pair in args.pairs:
            if pair.draft is None:
                args.notes.append(f"{pair.name}: speculative is left out: no draft model, --draft")
            methods, variants = _methods(args, pair), _variants(args)
            for task in tasks:
                for processor, sampling in processors(args).items():
                    yield Block(
                        pair, task, methods + (variants if processor == "greedy" else ()),
                        args.max_tokens, args.rounds, sampling, axes=_axes(processor, sampling),
                    )  # fmt: skip
            for noise in (0.0, *args.noises):
                sampling = {**_top_k(args), "noise_scale": noise}
                yield Block(
                    pair, sweep, methods, args.sweep_tokens, args.sweep_rounds, sampling,
                    axes=_axes("TopKwNoise", sampling),
                )  # fmt: skip

    def columns(self, row: Row) -> Row:
        scored = row["reference"] and not row["error"]
        return {
            "score": text_metrics.rouge(row["text"], row["reference"])["rougeL"]
            if scored
            else None,
            "distinct_1": text_metrics.distinct(row["text"], 1),
            "distinct_2": text_metrics.distinct(row["text"], 2),
        }

    def report(self, rows: Sequence[Row], args: argparse.Namespace) -> Report:
        return report_of(rows)

    def files(self, rows: Sequence[Row], args: argparse.Namespace) -> None:
        questions = {task.id: task.turns[0] for task in _questions(args)}
        with whole_file(args.out / "results.csv") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(CSV_COLUMNS)
            for row in rows:
                if row["task"] in questions and row["method"] in MODELS and not row["error"]:
                    writer.writerow([
                        questions[row["task"]], row["reference"], row["temperature"],
                        MODELS[row["method"]], row["processor"].partition(" ")[0], row["text"],
                        row["score"], row["acceptance_rate"], row["tokens_per_second"],
                        row["noise_scale"], row["pair"],
                    ])  # fmt: skip


def _check(args: argparse.Namespace) -> None:
    for flag, values, lowest, highest in (
        ("--temperature", [args.temperature], 0.001, 1_000_000),
        ("--top-k", [args.top_k], 1, 2**31 - 1),
        ("--noises", args.noises, 0.001, 100),
        ("--gamma", [args.gamma], 1, 64),
        ("--orders", args.orders, 2, 17),
        ("--fillers", args.fillers, 1, 64),
        ("--min-counts", args.min_counts, 1, 1_000_000),
        ("--sweep-tokens", [args.sweep_tokens], 1, 2**31 - 1),
        ("--sweep-rounds", [args.sweep_rounds], 1, 1_000_000),
    ):
        for value in values:
            if not lowest <= value <= highest:
                raise InvalidArgumentError(
                    f"{flag} must be between {lowest} and {highest}, not {value}"
                )
        if len(set(values)) < len(values):
            raise InvalidArgumentError(f"{flag} names a value twice")


def _questions(args: argparse.Namespace) -> list[Task]:
    found: Sequence[Sample] = QUESTIONS
    if args.questions is not None:
        found = data_sets.questions(args.questions)
    return [
        Task(
            f"question {number}", (sample.prompt,), "questions", "chat", reference=sample.reference
        )
        for number, sample in enumerate(found, 1)
    ]


def _top_k(args: argparse.Namespace) -> dict[str, Scalar]:
    return {"temperature": args.temperature, "top_k": args.top_k}


def processors(args: argparse.Namespace) -> dict[str, dict[str, Scalar]]:
    """By what tables call them: how a token is chosen."""
    found: dict[str, dict[str, Scalar]] = {
        "greedy": {"temperature": 0.0},
        "multinomial": {"temperature": args.temperature},
        "topk": _top_k(args),
    }
    for noise in args.noises:
        found[f"TopKwNoise {noise:g}"] = {**_top_k(args), "noise_scale": noise}
    return found


def _axes(processor: str, sampling: dict[str, Scalar]) -> dict[str, Scalar]:
    return {"processor": processor, "noise_scale": sampling.get("noise_scale", 0.0)}


def _methods(args: argparse.Namespace, pair: Pair) -> tuple[Method, ...]:
    found = [plain(), _ngram("ngram", args, args.orders[0], args.fillers[0], args.min_counts[0])]
    if pair.draft is not None:
        found.insert(
            1, Method("speculative", "model", options={"gamma": args.gamma}, verifier="standard")
        )
    return tuple(found)


def _variants(args: argparse.Namespace) -> tuple[Method, ...]:
    """One setting of the n-grams changed at a time."""
    order, filler, least = args.orders[0], args.fillers[0], args.min_counts[0]
    return (
        *(_ngram(f"ngram N={n}", args, n, filler, least) for n in args.orders[1:]),
        *(_ngram(f"ngram filler={n}", args, order, n, least) for n in args.fillers[1:]),
        *(_ngram(f"ngram min_count={n}", args, order, filler, n) for n in args.min_counts[1:]),
    )


def _ngram(name: str, args: argparse.Namespace, order: int, filler: int, least: int) -> Method:
    """An n-gram of order N is a context of N - 1 tokens and what follows it; `NGram` counts the
    context."""
    options: dict[str, Scalar] = {
        "n": order - 1, "filler_top_k": filler, "min_count": least, "gamma": args.gamma,
    }  # fmt: skip
    axes: dict[str, Scalar] = {"order": order, "filler_top_k": filler, "min_count": least}
    return Method(name, "ngram", options, axes=axes)
