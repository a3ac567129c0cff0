"""What the study `topk-importance` tells: its tables, its plots, the publication's figures."""

from __future__ import annotations

import collections
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .figures import equal_cell, grouped, number, percent, ranged, summary
from .report import Plot, Report, Table, Text, slug
from .runner import Row
from .text_metrics import OVERLAP

PUBLISHED = "topk_importance_published"
LOSSLESS = "topk_importance"
NAMES = {
    "auto": "direct",
    "standard": "standard",
    LOSSLESS: "TopK-Imp, lossless form",
    PUBLISHED: "TopK-Imp, published rule",
}
COLOURS = {"standard": "#4477aa", LOSSLESS: "#228833", PUBLISHED: "#cc6677"}
# (temperature, gamma): acceptance in %, speed-up; on Alpaca with K = 50.
ALPACA: dict[str, dict[tuple[float, int | None], tuple[float, float]]] = {
    "standard": {
        (1.0, 5): (24.56, 1.168), (1.0, 10): (21.80, 1.535), (1.0, 15): (21.48, 1.398),
        (0.0, 5): (24.37, 1.181), (0.0, 10): (21.07, 1.551), (0.0, 15): (20.67, 1.438),
    },
    PUBLISHED: {
        (1.0, 5): (78.46, 1.153), (1.0, 10): (77.94, 1.486), (1.0, 15): (78.56, 1.368),
        (0.0, 5): (97.50, 1.204), (0.0, 10): (98.62, 1.594), (0.0, 15): (99.13, 1.473),
    },
}  # fmt: skip
# K: acceptance in %, speed-up; Alpaca, temperature 1, gamma 10.
ALPACA_K: dict[int | None, tuple[float, float]] = {
    10: (56.25, 1.511),
    20: (68.55, 1.516),
    50: (77.94, 1.486),
}
RANGES = {
    ("wikitext", "standard"): "20-45 %",
    ("wikitext", PUBLISHED): "76-88 %",
    ("cnn-dm", "standard"): "10-31 %",
    ("cnn-dm", PUBLISHED): "73-88 %",
}
SPEED_RANGES = {"wikitext": "1.0-1.6", "cnn-dm": "1.0-1.4"}
WHY_NOT = (
    "The published figures stand beside ours and cannot be compared one to one. Their models were "
    "Llama-2-7B and a draft of 160M parameters that was not published, on an A100, without caches. "
    "Their program reads the target's probabilities one position late; it tosses a coin at each of "
    "the gamma positions and never stops at a rejection, so that each pass emits gamma tokens, "
    "right or wrong, and its speed-up does not depend on its acceptance (1.49, 1.51 and 1.52 times "
    "at 78, 56 and 69 %); the temperature applies to the draft alone. Here "
    "`topk_importance_published` is the rule of choice alone, in a loop without those faults: what "
    "follows a rejection is thrown away, as it must be. Its rows show what the rule calls "
    "acceptance: the share of all positions at which its coin would fall well. The row of "
    "K = 25 in the report was run with K = 20."
)


def lossless_acceptance(tokens: float, length: float) -> float:
    """The acceptance a at which drafts of a length give so many tokens a pass:
    (1 - a^(length + 1)) / (1 - a)."""
    if tokens >= length + 1:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(50):
        a = (low + high) / 2
        per_pass = (1 - a ** (length + 1)) / (1 - a)
        low, high = (a, high) if per_pass < tokens else (low, a)
    return (low + high) / 2


def figures_of(rows: Sequence[Row]) -> dict[str, Any]:
    """figures.summary, with what is counted as acceptance and what it is worth."""
    found = summary(rows)
    good = [row for row in rows if not row["error"]]
    passes = sum(row["rounds"] or 0 for row in good)
    drafted = sum(row["drafted"] or 0 for row in good)
    accepted = sum(row["accepted"] or 0 for row in good)
    per_round = 1 + accepted / passes if passes else None
    published = rows[0]["verifier"] == PUBLISHED
    return {
        **found,
        "counted": found["candidate_acceptance"] if published else found["acceptance"],
        "tokens_per_round": per_round,
        "worth": lossless_acceptance(per_round, drafted / passes) if per_round else None,
    }


# data set, temperature, gamma, verifier, K; no gamma for direct decoding, whose runs are one group
Key = tuple[str, float, int | None, str, int | None]
Figures = Mapping[Key, dict[str, Any]]


def report_of(rows: Sequence[Row]) -> Report:
    parts: list[Text | Table | Plot] = []
    for (pair,), group in grouped(rows, "pair").items():
        keys = ("data_set", "temperature", "gamma", "verifier", "k")
        one = [{**row, "gamma": None} if row["verifier"] == "auto" else row for row in group]
        figures: Figures = {key: figures_of(found) for key, found in grouped(one, *keys).items()}
        largest = max((key[4] or 0 for key in figures), default=0)
        main = {key: f for key, f in figures.items() if key[4] in (None, largest)}
        name = slug(pair)
        parts += [
            Text(verdict(main, largest), heading=pair),
            _main_table(main, largest, name),
            _sweep_table(figures, name),
            Text(WHY_NOT),
            _equal_table(figures, name),
            *_plots(main, largest, name),
            _detail_table(figures, name),
            *_text_tables(group, largest, name),
            Text(_memory(group)),
        ]
    return Report("TopK-Imp: candidates from the draft's best K", parts)


def verdict(figures: Figures, k: int) -> str:
    """What the published rule calls acceptance, beside what saves time."""

    def span(verifier: str, column: str, show: Callable[[float], str]) -> str:
        values = [
            f[column] for key, f in figures.items()
            if key[1] > 0 and key[3] == verifier and f[column] is not None
        ]  # fmt: skip
        if not values:
            return "-"
        low, high = show(min(values)), show(max(values))
        return low if low == high else f"{low} to {high}"

    def told(verifier: str) -> tuple[str, str]:
        return span(verifier, "counted", percent), span(verifier, "tokens_per_round", number)

    counted, tokens = told(PUBLISHED)
    if counted == "-":
        return "Nothing was sampled: at temperature 0 the rule has no choice, and is exact."
    accepted, lossless_tokens = told(LOSSLESS)
    return (
        f"**Above temperature 0, with K = {k}, the published rule counts {counted} of its "
        f"positions as accepted, and a pass gives {tokens} tokens: as much as a lossless method at "
        f"an acceptance of {span(PUBLISHED, 'worth', percent)}.** In the lossless form the "
        f"acceptance of a token whose predecessors stand is {span(LOSSLESS, 'worth', percent)}, a "
        f"pass gives {lossless_tokens} tokens, and {accepted} of all drafted ones are accepted; "
        f"the token that is emitted is one of the best K with probability "
        f"{span(LOSSLESS, 'in_set', percent)} (`in_set`). Standard: an acceptance of "
        f"{span('standard', 'worth', percent)}, {told('standard')[1]} tokens a pass."
    )


def _start(key: Key) -> list[str]:
    return [key[0], f"{key[1]:g}", "-" if key[2] is None else str(key[2])]


def _ordered(figures: Figures) -> list[tuple[Key, dict[str, Any]]]:
    order = list(NAMES)
    return sorted(
        figures.items(),
        key=lambda item: (*item[0][:2], item[0][2] or 0, order.index(item[0][3]), item[0][4] or 0),
    )


def published_cells(key: Key) -> list[str]:
    """Acceptance and speed-up of the publication for a row of the main table."""
    name, temperature, gamma, verifier, k = key
    if name == "alpaca" and (verifier == "standard" or k == 50):
        there = ALPACA.get(verifier, {}).get((temperature, gamma))
        if there is not None:
            return [f"{there[0]:.2f} %", f"{there[1]:.3f}"]
    if (name, verifier) in RANGES:
        return [RANGES[name, verifier], SPEED_RANGES[name]]
    return ["-", "-"]


def _main_table(figures: Figures, k: int, name: str) -> Table:
    cells = [
        [
            *_start(key),
            NAMES[key[3]],
            percent(f["counted"]),
            "1" if key[3] == "auto" else number(f["speedup"]),
            *published_cells(key),
        ]
        for key, f in _ordered(figures)
    ]
    header = ["data set", "T", "gamma", "method", "acceptance", "speed-up",
              "published acceptance", "published speed-up"]  # fmt: skip
    return Table(
        f"table-1-{name}", f"Table 1: acceptance and speed-up, K = {k}", header, cells,
        "acceptance: accepted of drafted tokens; of the published rule what it counts itself.",
    )  # fmt: skip


def _sweep_table(figures: Figures, name: str) -> Table:
    counts = collections.Counter(key[:3] for key in figures if key[3] == LOSSLESS)
    swept = [(key, f) for key, f in _ordered(figures) if key[4] and counts[key[:3]] > 1]
    cells = []
    for key, f in sorted(swept, key=lambda item: (*item[0][:3], item[0][4])):
        there = None
        if key[0] == "alpaca" and key[1:4] == (1.0, 10, PUBLISHED):
            there = ALPACA_K.get(20 if key[4] == 25 else key[4])
        cells.append([
            *_start(key), str(key[4]), NAMES[key[3]], percent(f["counted"]),
            number(f["speedup"]), percent(f["in_set"]),
            *(["-", "-"] if there is None else [f"{there[0]:.2f} %", f"{there[1]:.3f}"]),
        ])  # fmt: skip
    header = ["data set", "T", "gamma", "K", "method", "acceptance", "speed-up", "in_set",
              "published acceptance", "published speed-up"]  # fmt: skip
    return Table(
        f"table-2-{name}", "Table 2: the number of candidates", header, cells,
        "in_set: the target's probability of the draft's best K.",
    )  # fmt: skip


def _equal_table(figures: Figures, name: str) -> Table:
    cells = []
    for key, f in _ordered(figures):
        if key[2] is None:
            continue
        always = percent(lossless_acceptance(key[2], key[2])) if key[3] == PUBLISHED else "-"
        cells.append([
            *_start(key), "-" if key[4] is None else str(key[4]), NAMES[key[3]],
            percent(f["counted"]), number(f["tokens_per_round"]), percent(f["worth"]), always,
        ])  # fmt: skip
    header = ["data set", "T", "gamma", "K", "method", "counted acceptance", "tokens/pass",
              "lossless acceptance for that", "and for gamma tokens/pass"]  # fmt: skip
    return Table(
        f"equal-{name}", "Acceptance at equal tokens per pass", header, cells,
        "A lossless method that accepts each token with probability a gives (1 - a^(n+1)) / (1 - a)"
        " tokens a pass, n the mean length of its drafts; the last but one column is that a. The "
        "last column is the acceptance that would be needed to emit as many tokens a pass as the "
        "published program does unchecked.",
    )  # fmt: skip


def _detail_table(figures: Figures, name: str) -> Table:
    cells = [
        [
            *_start(key), "-" if key[4] is None else str(key[4]), NAMES[key[3]],
            percent(f["acceptance"]), percent(f["candidate_acceptance"]), percent(f["in_set"]),
            number(f["tokens_per_pass"]), "1" if key[3] == "auto" else ranged(f),
            number(f["tokens_per_second"], 1), equal_cell(f),
        ]
        for key, f in _ordered(figures)
    ]  # fmt: skip
    header = ["data set", "T", "gamma", "K", "method", "accepted / drafted",
              "candidate acceptance", "in_set", "tokens/pass",
              "speed-up (slowest-fastest prompt)", "tokens/s", "same tokens as direct"]  # fmt: skip
    return Table(f"detail-{name}", "All figures", header, cells)


def _text_tables(rows: Sequence[Row], k: int, name: str) -> list[Table]:
    """None where no data set has references."""
    cells = []
    good = [r for r in rows if r["rouge1"] is not None and r["k"] in (None, k)]
    groups = grouped(good, "data_set", "temperature", "verifier")
    for key in sorted(groups, key=lambda key: (*key[:2], list(NAMES).index(key[2]))):
        group = groups[key]
        means = [statistics.fmean(row[column] for row in group) for column in OVERLAP]
        shown = [f"{m:.3f}" for m in means[:3]] + [f"{m:.1f}" for m in means[3:]]
        prompts = len({row["task"] for row in group})
        cells.append([key[0], f"{key[1]:g}", NAMES[key[2]], str(prompts), *shown])
    header = ["data set", "T", "method", "prompts", "ROUGE-1", "ROUGE-2", "ROUGE-L", "BLEU",
              "edit distance"]  # fmt: skip
    table = Table(
        f"text-{name}", f"Texts against their references, K = {k}, all gammas", header, cells,
        "Means over runs, of the continuation alone (the publication counted the prompt in): "
        "F-measures of ROUGE, BLEU of one sentence, edit distance in characters.",
    )  # fmt: skip
    return [table] if cells else []


def _memory(rows: Sequence[Row]) -> str:
    gamma, k = max(row["gamma"] for row in rows), max(row["k"] or 0 for row in rows)
    vocabulary = rows[0]["vocabulary"]
    return (
        f"Memory: with candidates a pass keeps gamma K probabilities of the draft, at gamma "
        f"{gamma} and K {k} {gamma * k:,} numbers; whole laws are gamma V, {gamma * vocabulary:,}."
    )


# ---------------------------------------------------------------- plots


def _plots(figures: Figures, k: int, name: str) -> list[Plot]:
    data = list(dict.fromkeys(key[0] for key in figures))
    sampled = {key: f for key, f in figures.items() if key[1] > 0}
    size = (max(8.0, 4.6 * len(data)), 4.2)
    plots = [
        Plot(
            f"speedup-{name}", "Speed-up by length of drafts",
            functools.partial(_draw_speed, figures=figures, data=data),
            f"K = {k}. Solid: the highest temperature; dashed: the lowest. Points: mean over "
            "prompts.", size,
        ),
    ]  # fmt: skip
    if sampled:
        plots.insert(0, Plot(
            f"acceptance-{name}", "Acceptance as it is counted, and what it is worth",
            functools.partial(_draw_acceptance, figures=sampled, data=data),
            f"The highest temperature, K = {k}. Full: the acceptance at which a lossless method "
            "gives as many tokens a pass. Pale: what the published rule counts as accepted.", size,
        ))  # fmt: skip
    return plots


def _axes(figure: Any, data: Sequence[str]) -> list[Any]:
    found = figure.subplots(1, len(data), sharey=True, squeeze=False)[0]
    for axes, name in zip(found, data, strict=True):
        axes.set_title(name)
        axes.set_xlabel("gamma")
    return list(found)


def _draw_acceptance(figure: Any, figures: Figures, data: Sequence[str]) -> None:
    highest = max(key[1] for key in figures)
    for axes, name in zip(_axes(figure, data), data, strict=True):
        gammas = sorted({key[2] for key in figures if key[0] == name and key[2] is not None})
        axes.set_xticks(range(len(gammas)), [str(g) for g in gammas])
        for at, verifier in enumerate(COLOURS):
            counted = [("counted", 0.35)] if verifier == PUBLISHED else []
            for column, alpha in (*counted, ("worth", 1.0)):
                bars = [
                    (gammas.index(key[2]) + (at - 1) * 0.27, 100 * f[column])
                    for key, f in figures.items()
                    if (key[0], key[1], key[3]) == (name, highest, verifier)
                    and key[2] is not None
                    and f[column] is not None
                ]
                label = NAMES[verifier] if alpha == 1.0 else None
                axes.bar(
                    [x for x, _ in bars], [y for _, y in bars], 0.25,
                    color=COLOURS[verifier], alpha=alpha, label=label,
                )  # fmt: skip
    first = figure.axes[0]
    first.set_ylabel("%")
    first.set_ylim(0, 100)
    figure.legend(*first.get_legend_handles_labels(), loc="outside upper center", ncols=3)


def _draw_speed(figure: Any, figures: Figures, data: Sequence[str]) -> None:
    temperatures = sorted({key[1] for key in figures})
    ends = {temperatures[0]: "--", temperatures[-1]: "-"}
    for axes, name in zip(_axes(figure, data), data, strict=True):
        for verifier, colour in COLOURS.items():
            for temperature, style in ends.items():
                points = sorted(
                    (key[2], f["speedup"])
                    for key, f in figures.items()
                    if (key[0], key[1], key[3]) == (name, temperature, verifier)
                    and f["speedup"] is not None
                )
                axes.plot(
                    [x for x, _ in points], [y for _, y in points], style, marker="o", color=colour,
                    label=NAMES[verifier] if style == "-" else None,
                )  # fmt: skip
        axes.axhline(1.0, color="#aa3333", linestyle=":", linewidth=1.2)
        axes.set_xticks(
            sorted({key[2] for key in figures if key[0] == name and key[2] is not None})
        )
    figure.axes[0].set_ylabel("times plain decoding")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3)
