"""`adversarial`: what a useless draft model costs, where it does its worst."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from ..errors import InvalidArgumentError, ModelFileError
from .engines import Workbench
from .figures import equal_cell, grouped, number, percent, summary
from .methods import fitting, parse_methods, sampling_of
from .plan import PLAIN, Block, Pair, plain
from .prompt_sources import add_prompt_sources, tasks_of
from .report import Plot, Report, Table, Text
from .runner import Row
from .study import Study, spread_out

USELESS = "shuffled weights"
IN_TURN = "real and shuffled in turn"


class Adversarial(Study):
    name = "adversarial"
    needs_draft = True
    defaults: ClassVar[dict[str, Any]] = {"rounds": 2, "max_tokens": 128, "limit": 20}
    extra: ClassVar[tuple[str, ...]] = ("gguf", "numpy")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_prompt_sources(parser)
        add = parser.add_argument
        add("--attacked", default="auto", metavar="METHOD",
            help="auto, model or model:N (default auto, which promises the most)")  # fmt: skip
        add("--temperature", type=float, default=0.0, help="default 0")

    def blocks(self, args: argparse.Namespace, workbench: Workbench) -> Iterable[Block]:
        attacked = parse_methods(args.attacked)[-1]
        if attacked.drafter not in ("auto", "model"):
            raise InvalidArgumentError(
                f"--attacked must be a method with a draft model: auto, model or model:4, "
                f"not {args.attacked}"
            )
        sampling = sampling_of(args.temperature)
        for pair in args.pairs:
            has_template = workbench.target(pair).chat_template is not None
            tasks = [
                task for kind in tasks_of(args, has_template=has_template).values() for task in kind
            ]
            tasks = fitting(args, workbench, pair, tasks)
            if not tasks:
                continue
            useless = shuffled_pair(pair, args.out / "shuffled", make=not args.report)
            asked = spread_out(tasks, args.limit)
            requests = args.limit or len(asked)
            for case, pairs in ((USELESS, (useless,)), (IN_TURN, (pair, useless))):
                for i in range(requests):
                    yield Block(
                        pairs[i % len(pairs)], asked[i % len(asked)], (plain(), attacked),
                        args.max_tokens, args.rounds, sampling=sampling,
                        axes={"case": case, "request": i + 1, "target": pair.name},
                    )  # fmt: skip

    def report(self, rows: Sequence[Row], args: argparse.Namespace) -> Report:
        parts: list[Text | Table | Plot] = []
        for (target,), group in grouped(rows, "target").items():
            slug = "".join(c if c.isalnum() else "-" for c in target)
            parts.append(Text(_WHAT, heading=target))
            cases = cases_of(group)
            parts.append(_table(cases, slug))
            lines = {name: case["ratios"] for name, case in cases.items()}
            parts.append(
                Plot(
                    f"requests-{slug}", "Each request's time over plain",
                    functools.partial(_draw, lines=lines), "1 is plain decoding; more is slower.",
                )
            )  # fmt: skip
        return Report("Against hostile drafts", parts)


_WHAT = (
    "The draft model's matrices hold their own blocks in random order: a valid file, as costly as "
    "the real one and always wrong. A method that trusts it pays for every draft. `auto` promises "
    "that all requests together take at most 1.01 times the plain time and 4 plain steps, and one "
    "request at most 12 steps more than plain decoding."
)


def shuffled_pair(pair: Pair, folder: pathlib.Path, *, make: bool) -> Pair:
    assert pair.draft is not None
    source = pathlib.Path(pair.draft)
    out = folder / source.name
    if make and not (out.exists() and out.stat().st_size == source.stat().st_size):
        shuffle_weights(source, out)
    return dataclasses.replace(pair, name=f"{pair.name}, shuffled", draft=str(out))


def shuffle_weights(path: pathlib.Path, out: pathlib.Path) -> None:
    """A copy whose matrices hold the same blocks in random order: valid, as costly, and useless."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGUFReader

    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, partial)
        partial.chmod(0o644)
        data = np.memmap(partial, dtype=np.uint8, mode="r+")
        random = np.random.default_rng(1)
        for tensor in GGUFReader(path).tensors:
            if len(tensor.shape) < 2:
                continue
            block_bytes = GGML_QUANT_SIZES[tensor.tensor_type][1]
            first = int(tensor.data_offset)
            blocks = data[first : first + int(tensor.n_bytes)].reshape(-1, block_bytes)
            blocks[:] = blocks[random.permutation(len(blocks))]
        data.flush()
        partial.replace(out)
    except OSError as error:
        raise ModelFileError(f"{out} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


# ---------------------------------------------------------------- figures


def cases_of(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Of each case: time over plain of all requests together and of each, in order."""
    return {str(case): _figures(group) for (case,), group in grouped(rows, "case").items()}


def _figures(rows: Sequence[Row]) -> dict[str, Any]:
    base = {
        (row["block"], row["round"], row["turn"]): row for row in rows if row["method"] == PLAIN
    }
    own, plain_ms, ratios = 0.0, 0.0, {}
    for (request,), group in grouped(rows, "request").items():
        found = []
        for row in group:
            other = base.get((row["block"], row["round"], row["turn"]))
            if row["method"] != PLAIN and other and row["decode_ms"] and other["decode_ms"]:
                own += row["decode_ms"]
                plain_ms += other["decode_ms"]
                found.append(row["decode_ms"] / other["decode_ms"])
        if found:
            ratios[int(request)] = statistics.median(found)
    attacked = summary([row for row in rows if row["method"] != PLAIN])
    return {
        "total": own / plain_ms if plain_ms else None,
        "ratios": ratios,
        "drafted": sum(row["drafted"] or 0 for row in rows if row["method"] != PLAIN),
        "accepted": sum(row["accepted"] or 0 for row in rows if row["method"] != PLAIN),
        "summary": attacked,
    }


def _table(cases: Mapping[str, Mapping[str, Any]], slug: str) -> Table:
    cells = []
    for name, case in cases.items():
        ratios = list(case["ratios"].values())
        cells.append(
            [
                name,
                str(len(ratios)),
                number(case["total"], 3),
                number(statistics.median(ratios) if ratios else None, 3),
                number(max(ratios, default=None), 3),
                f"{case['accepted']}/{case['drafted']}",
                percent(case["summary"]["acceptance"]),
                equal_cell(case["summary"]),
            ]
        )
    header = ["draft model", "requests", "all requests' time / plain", "median request",
              "worst request", "accepted/drafted", "acceptance", "same tokens"]  # fmt: skip
    return Table(f"cases-{slug}", "Time over plain decoding", header, cells)


def _draw(figure: Any, lines: Mapping[str, Mapping[int, float]]) -> None:
    axes = figure.subplots()
    for name, ratios in lines.items():
        axes.plot(list(ratios), list(ratios.values()), marker="o", label=name)
    axes.axhline(1.0, color="#aa3333", linestyle="--", linewidth=1.2)
    axes.set_xlabel("request")
    axes.set_ylabel("time over plain")
    axes.legend()
