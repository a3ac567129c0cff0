"""`pairs`: target x draft x prompt, with greedy and sampled drafts and with caching disabled."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from ..errors import InvalidArgumentError
from .engines import Workbench
from .figures import by, equal_cell, geometric_mean, grouped, number, percent, share
from .plan import PLAIN, Block, Method, Pair, Scalar, Task, plain
from .report import Plot, Report, Table, Text, speedup_bars
from .runner import Row
from .study import Study, spread_out
from .times import latency_reduction, mean_and_deviation, mean_speedup

PROMPTS = {
    "ai": "The future of Artificial Intelligence is",
    "robot": "Write a short story about a robot learning to feel emotions:",
    "birthday": "Write the lyrics to the song 'Happy Birthday'.",
}
GAMMA = 17
UNCACHED = "plain, no cache"
QUIET = 0.15  # deviation of a call's times over their mean
LARGE = 0.25  # of the target's parameters; of the published drafts the 410M one has 0.29

# Pair, configuration, acceptance and speed-up on the three prompts, as published (draft length 17,
# half precision on a GPU). Where only a range was printed, the range.
PUBLISHED = (
    ("Pythia 1.4B + 160M", "greedy draft", "85.3 / 91.7 / 86.8 %", "1.48 / 1.63 / 2.30"),
    ("Pythia 1.4B + 160M", "sampled draft", "50-71 / 28-40 / 46-52 %", "0.69 / 0.49 / 1.30"),
    ("Pythia 1.4B + 160M", "greedy draft, no cache", "85.3 / 91.7 / 86.8 %", "1.60 / 1.79 / 1.90"),
    ("Pythia 1.4B + 70M", "greedy draft", "-", "1.66 to 1.90"),
    ("Pythia 1.4B + 410M", "greedy draft", "about 86 %", "0.72 to 0.87"),
    ("Pythia 2.8B + 160M", "greedy draft", "-", "0.99 to 1.43"),
    ("Llama 3.2 3B + 1B", "greedy draft", "8.8 % on the third", "0.20 to 1.00"),
)
ABOUT = (
    "A target with a draft model on three prompts, as raw text: with the draft's best tokens, with "
    "drafts drawn at temperature 1 from its best 50 (and still compared with the target's best "
    "token, so that the text stays the same), and with **caching disabled**: every pass of both "
    "models reads its whole context again, and so does the plain decoding it is compared with. "
    "Speed-up is mean time of plain decoding over mean time, prompts included; latency reduction "
    "is the share of the time that is saved; acceptance is accepted over drafted tokens."
)
DIFFERENT = (
    "Two things differ from the system that published these figures. After a draft that was right "
    "to its end the target's own next token is kept, and where a draft was wrong the right token "
    "comes from the same pass: no second pass is made. And its caching only reached the draft "
    "model, its target read everything again in each pass; here the cache serves both or neither."
)


def methods(gammas: Sequence[int]) -> tuple[Method, ...]:
    found = [plain(), Method(UNCACHED, decoder={"use_cache": False})]
    for gamma in gammas:
        greedy: dict[str, Scalar] = {"gamma": gamma, "sampling": "greedy"}
        drawn: dict[str, Scalar] = {
            "gamma": gamma, "sampling": "sampled", "temperature": 1.0, "draft_top_k": 50,
        }  # fmt: skip
        draft = functools.partial(Method, drafter="model", verifier="greedy")
        axes: dict[str, Scalar] = {"gamma": gamma}
        found += [
            draft(f"greedy:{gamma}", options=greedy, axes={**axes, "config": "greedy"}),
            draft(f"sampled:{gamma}", options=drawn, axes={**axes, "config": "sampled"}),
            draft(f"greedy:{gamma}, no cache", options=greedy, decoder={"use_cache": False},
                  baseline=UNCACHED, axes={**axes, "config": "no cache"}),
        ]  # fmt: skip
    return (*found, Method("auto", "auto"))


class Pairs(Study):
    name = "pairs"
    needs_draft = True
    defaults: ClassVar[dict[str, Any]] = {"rounds": 3, "max_tokens": 100}

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--gamma", type=int, nargs="+", default=[GAMMA], metavar="N",
            help=f"draft lengths (default {GAMMA}, as published)",
        )  # fmt: skip

    def blocks(self, args: argparse.Namespace, workbench: Workbench) -> Iterable[Block]:
        for gamma in args.gamma:
            if not 1 <= gamma <= 64:
                raise InvalidArgumentError(f"--gamma must be 1 to 64, not {gamma}")
        chosen = methods(list(dict.fromkeys(args.gamma)))
        for pair in args.pairs:
            axes = _axes(pair, workbench)
            for name in spread_out(list(PROMPTS), args.limit):
                n_tokens = self._within(name, pair, args, workbench)
                yield Block(
                    pair, Task(name, (PROMPTS[name],)), chosen, n_tokens, args.rounds,
                    sampling={"temperature": 0.0}, axes=axes,
                )  # fmt: skip

    def _within(self, name: str, pair: Pair, args: argparse.Namespace, workbench: Workbench) -> int:
        """Tokens to generate, as many as the context holds."""
        n_ctx = workbench.n_ctx(pair)
        room = max(n_ctx - len(workbench.target(pair).tokenize(PROMPTS[name])), 1)
        n_tokens: int = min(args.max_tokens, room)
        if n_tokens < args.max_tokens:
            args.notes.append(
                f"{pair.name}, {name}: {n_tokens} tokens instead of {args.max_tokens}, because the "
                f"context has {n_ctx}."
            )
        return n_tokens

    def report(self, rows: Sequence[Row], args: argparse.Namespace) -> Report:
        parts: list[Text | Table | Plot] = [
            Text(ABOUT),
            Text("", heading="Does the published pattern hold?"),
            *(Text(text) for text in pattern(rows)),
            _whole_table(rows),
            _like_the_published(rows),
            _published(),
            Text(DIFFERENT),
        ]
        parts += [_bars(pair, cells_of(group)) for (pair,), group in grouped(rows, "pair").items()]
        return Report("Pairs of models, greedy and sampled drafts, with and without caches", parts)


def _axes(pair: Pair, workbench: Workbench) -> dict[str, Scalar]:
    target, draft = workbench.target(pair).info, workbench.draft(pair).info
    return {"draft_share": round(draft.n_params / target.n_params, 4)}


def cells_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Figures of each pair, prompt and method."""
    found = []
    for (pair, task, method), group in grouped(rows, "pair", "task", "method").items():
        first = group[0]
        base = [
            r
            for r in rows
            if (r["pair"], r["task"], r["method"]) == (pair, task, first["baseline"])
        ]
        timed = [row for row in group if not row["error"]]
        speedup = None if method == PLAIN else mean_speedup(group, base)
        mean, deviation = mean_and_deviation(group)
        found.append(
            {
                "pair": pair, "task": task, "method": method, "config": first.get("config"),
                "gamma": first.get("gamma"), "draft_share": first["draft_share"],
                "tokens": timed[0]["emitted"] if timed else 0,
                "seconds": mean, "deviation": deviation,
                "acceptance": share(timed, "accepted", "drafted"),
                "speedup": speedup, "saved": latency_reduction(speedup),
                "rows": group,
            }
        )  # fmt: skip
    return found


def _whole_table(rows: Sequence[Row]) -> Table:
    names = list(dict.fromkeys(row["pair"] for row in rows))
    several = len(names) > 1
    lines = []
    for cell in cells_of(rows):
        (_, figures), *_ = by(cell["rows"], "method")
        lines.append(
            [
                *([cell["pair"]] if several else []), cell["task"], cell["method"],
                str(cell["tokens"]),
                number(cell["seconds"], 3), number(cell["deviation"], 3),
                number(figures["tokens_per_second"], 1), percent(cell["acceptance"]),
                "1" if cell["method"] == PLAIN else number(cell["speedup"]),
                percent(cell["saved"]), equal_cell(figures),
            ]
        )  # fmt: skip
    header = [*(["pair"] if several else []), "prompt", "method", "tokens", "seconds", "deviation",
              "tokens/s", "acceptance", "speed-up", "latency reduction", "same tokens"]  # fmt: skip
    title = "Target x draft x prompt" + ("" if several else f": {names[0]}")
    return Table(
        "pairs", title, header, lines,
        f"Speed-ups are over `{PLAIN}`, those of drafts without a cache over `{UNCACHED}`. "
        "tokens/s counts decoding only, seconds the prompt too.",
    )  # fmt: skip


def _bars(pair: str, cells: Sequence[dict[str, Any]]) -> Plot:
    """The table's speed-ups: mean over prompts, slowest and fastest."""
    bars = []
    for method in dict.fromkeys(cell["method"] for cell in cells if cell["method"] != PLAIN):
        values = [c["speedup"] for c in cells if c["method"] == method and c["speedup"]]
        figures = {
            "speedup": geometric_mean(values),
            "speedup_min": min(values, default=None),
            "speedup_max": max(values, default=None),
        }
        bars.append((method, figures))
    slug = "".join(c if c.isalnum() else "-" for c in pair)
    return Plot(
        f"speedup-{slug}",
        f"Speed-up of each method, {pair}",
        functools.partial(speedup_bars, groups=bars, label="times its baseline"),
        f"{pair}: the speed-ups of the table. Bars: geometric mean over prompts; lines: from the "
        "slowest prompt to the fastest.",
    )


def _like_the_published(rows: Sequence[Row]) -> Table:
    """One line per pair and method, prompts in one cell."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    lines = []
    for (pair, method), cells in _by_pair_and_method(rows).items():
        if method in (PLAIN, UNCACHED):
            continue
        of = {cell["task"]: cell for cell in cells}
        shares = [percent(of[t]["acceptance"]) if t in of else "-" for t in tasks]
        times = [number(of[t]["speedup"]) if t in of else "-" for t in tasks]
        lines.append([pair, method, " / ".join(shares), " / ".join(times)])
    return Table(
        "configurations",
        f"The same, laid out as the published figures; prompts {', '.join(tasks)}",
        ["pair", "method", "acceptance", "speed-up"],
        lines,
    )


def _by_pair_and_method(rows: Sequence[Row]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells_of(rows):
        found.setdefault((cell["pair"], cell["method"]), []).append(cell)
    return found


def _published() -> Table:
    return Table(
        "published",
        "As published by the course project whose experiment this is",
        ["pair", "configuration", "acceptance", "speed-up"],
        [list(line) for line in PUBLISHED],
        "Prompts ai / robot / birthday, draft length 17, other machines and models: to compare "
        "the pattern, not the figures.",
    )


# ---------------------------------------------------------------- the pattern


def pattern(rows: Sequence[Row]) -> list[str]:
    """Three claims of the published figures, against the measured ones, and how far to trust it."""
    cells = cells_of(rows)
    texts = [_greedy_above_sampled(cells), _uncached_above_one(cells), _large_below_one(cells)]
    spread = max((c["deviation"] / c["seconds"] for c in cells if c["seconds"]), default=0.0)
    if spread > QUIET:
        texts.append(
            f"**The machine was not quiet**: times of the same call deviate by up to {spread:.0%} "
            "of their mean. What is said of speeds above may be chance; acceptance is not."
            .replace("%", " %")
        )  # fmt: skip
    return texts


def _said(claim: str, holds: Sequence[bool], unit: str, more: str = "") -> str:
    if not holds:
        return f"**{claim}: cannot be told** from these runs.{more}"
    n = sum(holds)
    word = "holds" if n == len(holds) else "is refuted" if n == 0 else "holds in part"
    return f"**{claim}: {word}**, in {n} of {len(holds)} {unit}.{more}"


def _greedy_above_sampled(cells: Sequence[dict[str, Any]]) -> str:
    sampled = {(c["pair"], c["task"], c["gamma"]): c for c in cells if c["config"] == "sampled"}
    couples = [
        (c, sampled[c["pair"], c["task"], c["gamma"]])
        for c in cells
        if c["config"] == "greedy" and (c["pair"], c["task"], c["gamma"]) in sampled
    ]
    faster = [
        g["speedup"] > s["speedup"] for g, s in couples if g["speedup"] and s["speedup"]
    ]  # fmt: skip
    accepted = [
        g["acceptance"] > s["acceptance"]
        for g, s in couples
        if g["acceptance"] is not None and s["acceptance"] is not None
    ]
    more = f" Its acceptance is higher in {sum(accepted)} of {len(accepted)}." if accepted else ""
    unit = "cases (pair, prompt, draft length)"
    return _said("Greedy drafts are faster than sampled ones", faster, unit, more)


def _uncached_above_one(cells: Sequence[dict[str, Any]]) -> str:
    values = [c["speedup"] for c in cells if c["config"] == "no cache" and c["speedup"]]
    more = f" Speed-ups {min(values):.2f} to {max(values):.2f}." if values else ""
    plain_ = [c["speedup"] for c in cells if c["method"] == UNCACHED and c["speedup"]]
    if plain_:
        more += (
            f" Plain decoding without a cache has {min(plain_):.2f} to {max(plain_):.2f} times the "
            "speed of plain decoding with one, which every figure without a cache is to be "
            "multiplied with."
        )
    return _said(
        "With caching disabled speculation stays above 1", [v > 1 for v in values], "cases", more
    )


def _large_below_one(cells: Sequence[dict[str, Any]]) -> str:
    greedy = [c for c in cells if c["config"] == "greedy" and c["speedup"]]
    values = [c["speedup"] for c in greedy if c["draft_share"] >= LARGE]
    shares = sorted({(c["draft_share"], c["pair"]) for c in greedy})
    sizes = ", ".join(f"{share_:.0%} of {pair}" for share_, pair in shares).replace("%", " %")
    more = f" Drafts have of the target's parameters: {sizes}." if shares else ""
    if values:
        more += f" Speed-ups {min(values):.2f} to {max(values):.2f}."
    claim = f"Large drafts (at least {LARGE:.0%} of the target) stay below 1".replace("%", " %")
    return _said(claim, [v < 1 for v in values], "cases", more)
