"""`topk-importance`: candidates from the draft's best K, as published and in the lossless form."""

from __future__ import annotations

import argparse
import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from ..errors import InvalidArgumentError
from ..model import Model
from . import data_sets, text_metrics
from .data import own_prompts
from .engines import Workbench
from .plan import Block, Method, Scalar, Task, plain
from .report import Report
from .runner import Row
from .study import Study, spread_out
from .topk_tables import report_of

GAMMAS = {"alpaca": (5, 10, 15), "wikitext": (5, 10, 15), "cnn-dm": (4, 8, 15), "own": (5, 10, 15)}
# Tokens that are read. The first is the publication's; it does not tell the others'.
PROMPT_TOKENS = {"alpaca": 60, "wikitext": 60, "cnn-dm": 256}
REFERENCE_TOKENS = 50


class TopkImportance(Study):
    name = "topk-importance"
    needs_draft = True
    defaults: ClassVar[dict[str, Any]] = {
        "rounds": 1, "max_tokens": 50, "limit": 500, "ctx": 1024,
    }  # fmt: skip
    extra = text_metrics.PACKAGES

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = functools.partial(parser.add_argument, type=pathlib.Path, metavar="FILE")
        add("--alpaca", help="a JSON list, or JSON lines, with instruction, input, output")
        add("--wikitext", help="the raw text of WikiText-2 or -103")
        add(
            "--cnn-dm",
            help="CSV or JSON lines with article and highlights, or Spec-Bench's questions",
        )
        add("--prompts", help="your own: JSON lines or a text, as of the study mine")
        parser.add_argument(
            "--gammas", type=int, nargs="+", metavar="N",
            help="lengths of drafts (default 5 10 15; 4 8 15 for CNN/DailyMail)",
        )  # fmt: skip
        parser.add_argument(
            "--temperatures", type=float, nargs="+", default=[0.0, 1.0], metavar="T",
            help="default 0 1",
        )  # fmt: skip
        parser.add_argument(
            "--ks", type=int, nargs="+", default=[10, 25, 50], metavar="K",
            help="candidates: the largest everywhere, the others only at the middle gamma and "
            "above temperature 0 (default 10 25 50)",
        )  # fmt: skip
        parser.add_argument("--grid", action="store_true", help="every K everywhere")

    def blocks(self, args: argparse.Namespace, workbench: Workbench) -> Iterable[Block]:
        _check(args)
        for pair in args.pairs:
            vocabulary = workbench.target(pair).info.vocab_size
            for name, tasks in _tasks(args, workbench.target(pair)).items():
                gammas = sorted(set(args.gammas or GAMMAS[name]))
                for task in tasks:
                    for temperature in sorted(set(args.temperatures)):
                        for gamma in gammas:
                            yield Block(
                                pair, task,
                                _methods(args, gamma, gammas, temperature),
                                args.max_tokens, args.rounds,
                                sampling={"temperature": temperature}, ignore_eos=True,
                                axes={"data_set": name, "gamma": gamma, "vocabulary": vocabulary},
                            )  # fmt: skip

    def columns(self, row: Row) -> Row:
        return text_metrics.overlap(row["text"], "" if row["error"] else row["reference"])

    def report(self, rows: Sequence[Row], args: argparse.Namespace) -> Report:
        return report_of(rows)


def _check(args: argparse.Namespace) -> None:
    if not any((args.alpaca, args.wikitext, args.cnn_dm, args.prompts)):
        raise InvalidArgumentError(
            "no data: give at least one of --alpaca, --wikitext, --cnn-dm and --prompts"
        )
    for flag, values, lowest, highest in (
        ("--gammas", args.gammas or (1,), 1, 64),
        ("--temperatures", args.temperatures, 0, 1_000_000),
        ("--ks", args.ks, 1, 2**31 - 1),
    ):
        for value in values:
            if not lowest <= value <= highest:
                raise InvalidArgumentError(
                    f"{flag} must be between {lowest} and {highest}, not {value}"
                )


def _methods(
    args: argparse.Namespace, gamma: int, gammas: Sequence[int], temperature: float
) -> tuple[Method, ...]:
    # A trimmed head keeps tokens out of every set.
    common: dict[str, Scalar] = {"gamma": gamma, "head_tokens": 0}
    sweep = args.grid or (gamma == gammas[len(gammas) // 2] and temperature > 0)
    ks = sorted(set(args.ks)) if sweep else [max(args.ks)]
    found = [plain(k=None), Method("standard", "model", common, "standard", axes={"k": None})]
    for verifier in ("topk_importance", "topk_importance_published"):
        found += [
            Method(f"{verifier}:{k}", "model", {**common, "draft_top_k": k}, verifier,
                   axes={"k": k})
            for k in ks
        ]  # fmt: skip
    return tuple(found)


# ---------------------------------------------------------------- prompts


def _tasks(args: argparse.Namespace, target: Model) -> dict[str, list[Task]]:
    """Of each data set that is given. An answer counts up to REFERENCE_TOKENS tokens."""
    found: dict[str, list[Task]] = {}
    readers: dict[str, Callable[[pathlib.Path], list[data_sets.Sample]]] = {
        "alpaca": data_sets.alpaca,
        "cnn-dm": data_sets.cnn_dailymail,
    }
    for name, read in readers.items():
        path = getattr(args, name.replace("-", "_"))
        if path is not None:
            found[name] = [
                Task(
                    f"{name} {number}", (sample.prompt,), name,
                    reference=_first_tokens(target, sample.reference),
                    max_prompt_tokens=PROMPT_TOKENS[name],
                )
                for number, sample in enumerate(read(path)[: args.limit], 1)
            ]  # fmt: skip
    if args.wikitext is not None:
        found["wikitext"] = spread_out(_continuations(args.wikitext, target), args.limit)
    if args.prompts is not None:
        found["own"] = own_prompts(args.prompts)[: args.limit]
    return found


def _first_tokens(target: Model, text: str) -> str:
    ids = target.tokenize(text, add_special=False, parse_special=False)
    return target.detokenize(ids[:REFERENCE_TOKENS])


def _continuations(path: pathlib.Path, target: Model) -> list[Task]:
    """Of each paragraph that is long enough: its beginning, and what follows."""
    context = PROMPT_TOKENS["wikitext"]
    tasks = []
    for number, paragraph in enumerate(data_sets.wikitext(path), 1):
        ids = target.tokenize(paragraph)
        if len(ids) < context + REFERENCE_TOKENS:
            continue
        rest = target.detokenize(
            ids[context : context + REFERENCE_TOKENS], strip_space_prefix=False
        )
        tasks.append(
            Task(
                f"wikitext {number}", (paragraph,), "wikitext",
                reference=rest, max_prompt_tokens=context,
            )
        )  # fmt: skip
    if not tasks:
        raise InvalidArgumentError(
            f"{path}: no paragraph has {context + REFERENCE_TOKENS} tokens: {context} are read, "
            f"{REFERENCE_TOKENS} are compared with"
        )
    return tasks
