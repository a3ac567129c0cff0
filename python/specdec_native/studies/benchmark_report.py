"""Tables and plots of prompt sets: over all, per category, beside the original figure."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .figures import by, equal_cell, grouped, number, per_prompt, percent, ranged
from .plan import PLAIN
from .report import Plot, Report, Table, Text, speedup_bars
from .runner import Row

HEADER = (
    "tokens/s", "speed-up (slowest-fastest)", "with the prompt", "ratio of means", "tokens/pass",
    "acceptance", "same tokens",
)  # fmt: skip
NOTE = (
    "speed-up: geometric mean over prompts of each one's median over rounds, while decoding; with "
    "the prompt: of the whole call; ratio of means: as the original protocol computes it; "
    "tokens/pass: mean accepted tokens of the original, 1 for plain."
)

_SHARED = (
    ("Speed: tokens over time of each question, averaged, then the ratio of two averages: fast "
     "questions weigh more, and nothing tells how one question fared.",
     "Each run is compared with plain decoding of the same prompt in the same round; geometric "
     "mean over prompts, with the slowest and the fastest. The original's figure stands in a "
     "column of its own."),
    ("The prompt's reading is inside the time, so short answers hide what decoding gains or loses.",
     "Both: while decoding, and with the prompt."),
)  # fmt: skip
# What a protocol does, and what is done here instead.
DIFFERENCES: dict[str, Sequence[tuple[str, str]]] = {
    "spec-bench": (
        *_SHARED,
        ("Equality is checked on texts, by a separate script, for files of 32-bit models: it stops "
         "at the shorter file and looks at the first of several answers only.",
         "Every run is compared with plain decoding by token id; one that differs makes the "
         "command fail."),
        ("Tokens of the baseline are counted by tokenising its text anew, those of the methods as "
         "they were emitted.", "All are counted as they were emitted."),
        ("Methods run one after the other, each for hours: the machine's state is in the ratio.",
         "Methods take turns on each prompt, and each round starts with another."),
        ("The chat format is Vicuna's for every model.",
         "The file's own template; without one the text itself."),
        ("Prompt lookup drafts only where ten tokens of continuation exist, from the earliest "
         "match.", "Lookups draft what there is, from the most recent match."),
        ("Warm-up: three runs of the first question.",
         "A warm-up of 16 tokens before the first run of each method; what one conversation left "
         "behind is dropped before the next, so no lookup finds an earlier answer to its prompt."),
        ("At most 1024 tokens an answer, mean of three runs.",
         "-n tokens (256 unless given), median of --rounds; -n 1024 for the original's."),
    ),
    "speed-bench": (
        *_SHARED,
        ("Its throughput split (prompts of 1k to 32k tokens, many at a time) measures servers.",
         "One conversation at a time, as on a person's own machine: meant for the qualitative "
         "split, whose domains are the categories below. Files of the throughput split work where "
         "the context allows."),
        ("Mean acceptance length and rate per domain; losslessness is left to the engines.",
         "The same figures per domain, and token ids compared with plain decoding in every run."),
        ("Answers of up to 4096 tokens, in the engine's own chat format.",
         "-n tokens (256 unless given), the file's own template, no system message."),
    ),
    "humaneval": (
        *_SHARED,
        ("Made to test programs, not speed: papers ask for the functions in different ways.",
         "A model with a chat template is asked to complete the function, another one continues "
         "its text. Correctness is not measured: the tokens are those of plain decoding."),
    ),
}  # fmt: skip


def report_of(title: str, rows: Sequence[Row], differences: Sequence[tuple[str, str]]) -> Report:
    parts: list[Text | Table | Plot] = []
    for (pair,), group in grouped(rows, "pair").items():
        slug = "".join(c if c.isalnum() else "-" for c in pair)
        parts.append(Text(_conversations(group), heading=pair))
        parts += tables_of(group, slug)
        parts += plots_of(group, slug)
    parts.append(
        Table(
            "protocol", "What the original protocol does, and what is done here",
            ["original", "here"], differences,
        )
    )  # fmt: skip
    return Report(title, parts)


def _conversations(rows: Sequence[Row]) -> str:
    """How many there are, and how many ended before their last turn."""
    last = {block: max(r["turn"] for r in g) + 1 for (block,), g in grouped(rows, "block").items()}
    asked = {row["block"]: row.get("turns", 1) for row in rows}
    temperature = ", ".join(sorted({str(row["temperature"]) for row in rows}))
    text = f"{len(last)} prompts, temperature {temperature}."
    if more := sum(n > 1 for n in last.values()):
        text += f" Conversations of several turns: {more}; each turn counts as a prompt."
    if short := sum(n < asked[block] for block, n in last.items()):
        text += f" Ended early, because the next turn did not fit into the context: {short}."
    return text


def tables_of(rows: Sequence[Row], slug: str) -> list[Table]:
    """Over all prompts; each category's speed-ups; each category's figures."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    over_all = [
        [name, *_cells(group, rows), slowest(group)]
        for (name,), group in grouped(rows, "method").items()
    ]
    wide, long = [], []
    for (category,), group in grouped(rows, "category").items():
        figures = {key[0]: f for key, f in by(group, "method")}
        n = next(iter(figures.values()))["prompts"]
        wide.append(
            [
                category,
                str(n),
                *(ranged(figures[m]) for m in methods if m in figures and m != PLAIN),
            ]
        )
        for (method,), own in grouped(group, "method").items():
            long.append([category, method, *_cells(own, group)])
    others = [m for m in methods if m != PLAIN]
    tables = [
        Table(f"methods-{slug}", "All prompts", ["method", *HEADER, "slowest prompt"], over_all,
              NOTE),
        Table(f"speedups-{slug}", "Speed-up in each category (slowest-fastest)",
              ["category", "prompts", *others], wide),
        Table(f"categories-{slug}", "Each category", ["category", "method", *HEADER], long),
    ]  # fmt: skip
    return tables if len(wide) > 1 else tables[:1]


def _cells(rows: Sequence[Row], of: Sequence[Row]) -> list[str]:
    """Of one method's rows; `of` holds its baseline's."""
    (((method, *_), f),) = by(rows, "method", "baseline")
    base = [row for row in of if row["method"] == rows[0]["baseline"]]
    is_base = method == rows[0]["baseline"]
    return [
        number(f["tokens_per_second"], 1),
        "1" if is_base else ranged(f),
        "1" if is_base else number(f["total_speedup"]),
        "1" if is_base else number(ratio_of_means(rows, base)),
        number(f["tokens_per_pass"]),
        percent(f["acceptance"]),
        equal_cell(f),
    ]


def original_speed(rows: Sequence[Row]) -> float | None:
    """Tokens over whole time of each question with all its turns, averaged over questions and
    rounds."""
    speeds = []
    for group in grouped([r for r in rows if not r["error"]], "block", "round").values():
        if all(row["total_ms"] for row in group):
            speeds.append(sum(r["emitted"] for r in group) / sum(r["total_ms"] for r in group))
    return statistics.fmean(speeds) if speeds else None


def ratio_of_means(rows: Sequence[Row], base: Sequence[Row]) -> float | None:
    own, plain = original_speed(rows), original_speed(base)
    return own / plain if own and plain else None


def slowest(rows: Sequence[Row]) -> str:
    """The prompt, and turn, with the least speed-up, and that."""
    speedups = per_prompt([row for row in rows if not row["error"]], "speedup")
    if not speedups:
        return "-"
    (block, turn), least = min(speedups.items(), key=lambda item: item[1])
    task = next(row["task"] for row in rows if row["block"] == block)
    name = f"{task}, turn {turn + 1}" if turn > 0 else task
    return f"{name} ({least:.2f})"


# ---------------------------------------------------------------- plots


def plots_of(rows: Sequence[Row], slug: str) -> list[Plot]:
    methods = [(str(key[0]), f) for key, f in by(rows, "method") if key[0] != PLAIN]
    plots = [
        Plot(
            f"methods-{slug}", "Speed-up of each method",
            functools.partial(speedup_bars, groups=methods),
            "Bars: mean over prompts; lines: from the slowest prompt to the fastest.",
        )
    ]  # fmt: skip
    tables: dict[str, Mapping[str, Any]] = {
        str(category): {str(key[0]): f for key, f in by(group, "method")}
        for (category,), group in grouped(rows, "category").items()
    }
    if len(tables) == 1:
        return plots
    names = [name for name, _ in methods]
    height = 1.5 + 0.22 * len(tables) * max(1, len(names))
    for figure, label, caption in (
        ("speedup", "times plain",
         "Speed-up in each category; lines from the slowest prompt to the fastest."),
        ("tokens_per_pass", "tokens per pass of the model",
         "Mean accepted tokens: what one pass of the model gave, in each category."),
    ):  # fmt: skip
        plots.append(
            Plot(
                f"{figure.replace('_', '-')}-categories-{slug}",
                f"{label[0].upper()}{label[1:]}, in each category",
                functools.partial(
                    category_bars, tables=tables, methods=names, column=figure, label=label,
                ),
                caption,
                (8.0, height),
            )
        )  # fmt: skip
    return plots


def category_bars(
    figure: Any,
    tables: Mapping[str, Mapping[str, Any]],
    methods: Sequence[str],
    column: str,
    label: str,
) -> None:
    """A group of bars per category, one bar per method; lines from the slowest to the fastest."""
    axes = figure.subplots()
    thick = 0.8 / max(1, len(methods))
    for i, method in enumerate(methods):
        shown = [
            (at + i * thick, tables[category][method])
            for at, category in enumerate(tables)
            if method in tables[category] and tables[category][method][column] is not None
        ]
        axes.barh([at for at, _ in shown], [f[column] for _, f in shown], thick, label=method)
        for at, f in shown:
            ends = [f.get(f"{column}_min"), f.get(f"{column}_max")]
            if None not in ends:
                axes.plot(ends, [at, at], color="#222222", linewidth=1)
    axes.axvline(1.0, color="#aa3333", linestyle="--", linewidth=1.2)
    axes.set_yticks([at + 0.4 - thick / 2 for at in range(len(tables))], list(tables))
    axes.set_xlabel(label)
    axes.invert_yaxis()
    if methods:
        axes.legend(fontsize=8, loc="best")
