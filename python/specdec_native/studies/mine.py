"""`mine`: every drafter that is possible, on the user's own prompts."""

from __future__ import annotations

import argparse
import functools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from .data import own_prompts
from .engines import Workbench
from .figures import by, equal_cell, grouped, number, percent, ranged
from .methods import possible
from .plan import PLAIN, Block, Method, plain
from .report import Plot, Report, Table, Text, speedup_bars
from .runner import Row
from .study import Study, spread_out

# What a user would write down: Python, and flags of `specdec`.
_SETTINGS: dict[str, tuple[str, str]] = {
    PLAIN: ("drafter=None", "--drafter none"),
    "auto": ('drafter="auto"', "--drafter auto"),
    "ngram": ("drafter=sd.NGram()", "--drafter ngram"),
    "suffix": ("drafter=sd.SuffixAutomaton()", "--drafter suffix"),
    "recycling": ("drafter=sd.TokenRecycling()", "--drafter recycling"),
    "layerskip": ("drafter=sd.LayerSkip()", "--drafter layerskip"),
}
_MODEL_LENGTHS = (2, 4, 7)


def all_methods(with_draft: bool) -> list[Method]:
    methods = [plain(), Method("auto", "auto")]
    methods += [Method(name, name) for name in ("ngram", "suffix", "recycling", "layerskip")]
    if with_draft:
        methods += [Method(f"model:{n}", "model", options={"draft_max": n}) for n in _MODEL_LENGTHS]
    return methods


def settings_of(method: str) -> tuple[str, str]:
    """What to write for a method, in Python and on the command line."""
    name, _, length = method.partition(":")
    if name == "model":
        return (
            f"drafter=sd.DraftModel(draft, draft_max={length})",
            f"-md DRAFT --drafter model --draft-max {length}",
        )
    return _SETTINGS.get(name, (name, name))


def verdict(figures: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """What is fastest, by how much, and how sure that is."""
    timed = [(name, f) for name, f in figures if f["speedup"] is not None]
    if not timed:
        return "No method was timed against plain decoding."
    name, best = max(timed, key=lambda item: item[1]["speedup"])
    python, flags = settings_of(name)
    low, high = best["speedup_quartiles"]
    noise = "" if low is None else f"; the middle half of all pairs of runs {low:.2f} to {high:.2f}"
    range_ = f"slowest prompt {best['speedup_min']:.2f}, fastest {best['speedup_max']:.2f}{noise}"
    if best["speedup"] < 1.02:
        return (
            f"**Speculation does not pay on these prompts**: the best method, {name}, reaches "
            f"{best['speedup']:.2f} times the plain speed ({range_}). Write `drafter=None` or "
            "`--drafter none`."
        )
    return (
        f"**{name} is fastest: {best['speedup']:.2f} times the plain speed** ({range_}). "
        f"Write `{python}` in Python, `{flags}` on the command line."
    )


class Mine(Study):
    name = "mine"
    defaults: ClassVar[dict[str, Any]] = {"rounds": 3, "max_tokens": 128}

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "prompts",
            type=pathlib.Path,
            help='JSON lines with "prompt", "turns" or "messages"; or a text file, which is one '
            "prompt",
        )
        parser.add_argument("--temperature", type=float, default=0.0, help="default 0")

    def blocks(self, args: argparse.Namespace, workbench: Workbench) -> Iterable[Block]:
        tasks = spread_out(own_prompts(args.prompts), args.limit)
        for pair in args.pairs:
            methods = possible(args, workbench, pair, all_methods(pair.draft is not None))
            for task in tasks:
                yield Block(
                    pair, task, methods, args.max_tokens, args.rounds,
                    sampling={"temperature": args.temperature},
                )  # fmt: skip

    def report(self, rows: Sequence[Row], args: argparse.Namespace) -> Report:
        parts: list[Text | Table | Plot] = []
        for (pair,), group in grouped(rows, "pair").items():
            figures = [(str(key[0]), f) for key, f in by(group, "method")]
            figures.sort(key=lambda item: -(item[1]["speedup"] or 0.0))
            parts.append(Text(verdict(figures), heading=pair))
            cells = [
                [
                    name,
                    number(f["tokens_per_second"], 1),
                    "1" if name == PLAIN else ranged(f),
                    number(f["total_speedup"]),
                    percent(f["acceptance"]),
                    number(f["tokens_per_pass"]),
                    equal_cell(f),
                ]
                for name, f in figures
            ]
            header = ["method", "tokens/s", "speed-up (slowest-fastest prompt)", "with the prompt",
                      "acceptance", "tokens/pass", "same tokens as plain"]  # fmt: skip
            slug = "".join(c if c.isalnum() else "-" for c in pair)
            parts.append(Table(f"methods-{slug}", "Methods", header, cells))
            bars = [(name, f) for name, f in figures if name != PLAIN]
            parts.append(
                Plot(
                    f"speedup-{slug}",
                    "Speed-up of each method",
                    functools.partial(speedup_bars, groups=bars),
                    "Bars: mean over prompts; lines: from the slowest prompt to the fastest.",
                )
            )
            parts.append(_per_prompt(group, slug))
        return Report("Which drafter is fastest on my prompts", parts)


def _per_prompt(rows: Sequence[Row], slug: str) -> Table:
    methods = list(dict.fromkeys(row["method"] for row in rows if row["method"] != PLAIN))
    cells = []
    for (task, turn), group in grouped([r for r in rows if not r["error"]], "task", "turn").items():
        line = [task if turn == 0 else f"{task}, turn {turn + 1}"]
        plain_rows = [row for row in group if row["method"] == PLAIN]
        line.append(str(plain_rows[0]["emitted"]) if plain_rows else "-")
        figures = {key[0]: f for key, f in by(group, "method")}
        line += [number(figures[m]["speedup"]) if m in figures else "-" for m in methods]
        cells.append(line)
    return Table(
        f"prompts-{slug}", "Speed-up on each prompt", ["prompt", "tokens", *methods], cells
    )
