"""What the study `samplers` tells: its tables and plots."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from .figures import equal_cell, grouped, number, percent, ranged, summary
from .plan import PLAIN
from .report import Plot, Report, Table, Text, slug
from .runner import Row

COLOURS = {PLAIN: "#777777", "speculative": "#4477aa", "ngram": "#228833"}
ABOUT = (
    "What differs from the evaluation that this study repeats. Its figures: 30 questions, "
    "Llama-2-7B-chat with TinyLlama in 8 bits, no caches; autoregressive 6.5-6.7 tokens/s, n-gram "
    "7.0-7.2 at an acceptance of 0.28-0.30, speculative 5.0-5.3 at 0.42-0.51, slower than without; "
    "its throughput counted characters. Its multinomial ignored the temperature; its n-gram "
    "verification drew twice where a draft was wrong, which shifts the law. `score` is "
    "ROUGE-L against the answer, not the cosine of sentence embeddings. distinct-n: different "
    "n-grams of words over all of a text; longer texts have less. With `TopKwNoise` Gaussian noise "
    "is added to the logits of the best K. The speculative rows use the verifier `standard` with "
    "sampled drafts, which follows the law but not the tokens of plain sampling; the n-gram rows "
    "are compared token by token at every temperature. Ranges: from the slowest question to the "
    "fastest; same tokens: as autoregressive."
)
LEVELS = (
    "An n-gram of order N has a context of N - 1 tokens: `NGram(n=N - 1)`. All levels from that "
    "context down to one token are kept and the longest that matches decides; there is no option "
    "for one level alone. The store of the original leaves the level of one token out, so that its "
    "order 3 has one level and its order 2 is empty."
)


def report_of(rows: Sequence[Row]) -> Report:
    parts: list[Text | Table | Plot] = []
    for (pair,), group in grouped(rows, "pair").items():
        asked = [row for row in group if row["category"] == "questions"]
        swept = [row for row in group if row["category"] != "questions"]
        main = [row for row in asked if row["method"] in COLOURS]
        name = slug(pair)
        parts.append(Text(greedy_verdict(main), heading=pair))
        parts += [_processor_table(main, name), _speed_plot(main, name)]
        parts += [_ngram_table(asked, name), Text(LEVELS)]
        parts += [_noise_table(swept, name), _noise_plot(swept, name)] if swept else []
    return Report("Samplers and ways to decode", [*parts, Text(ABOUT)])


def greedy_verdict(rows: Iterable[Row]) -> str:
    """How many greedy outputs are not plain greedy decoding's."""
    greedy = [row for row in rows if row["processor"] == "greedy" and not row["error"]]
    told = []
    for method in ("speculative", "ngram"):
        checked = [r["identical"] for r in greedy if r["method"] == method]
        if checked:
            told.append(f"{checked.count(False)} of {len(checked)} {method} outputs")
    if not told:
        return "No greedy output was compared with plain greedy decoding."
    return (
        f"**Greedy: {' and '.join(told)} differ from plain greedy decoding.** In the results that "
        "the original published 17 of 30 and 1 of 30 do: its greedy processor leaves both laws as "
        "they are and accepts a draft that is not the best token by coin."
    )


def _mean(rows: Iterable[Row], column: str) -> float | None:
    values = [row[column] for row in rows if row[column] is not None]
    return statistics.fmean(values) if values else None


def _varied(rows: Sequence[Row]) -> list[str]:
    return [number(_mean(rows, "distinct_1"), 3), number(_mean(rows, "distinct_2"), 3)]


def _model(method: str) -> str:
    return "autoregressive" if method == PLAIN else method


def _processor_table(rows: Sequence[Row], name: str) -> Table:
    cells = []
    for (processor, method), group in grouped(rows, "processor", "method").items():
        f = summary(group)
        cells.append([
            processor, _model(method), percent(f["acceptance"]), number(f["tokens_per_pass"]),
            number(f["tokens_per_second"], 1), "1" if method == PLAIN else ranged(f),
            number(_mean(group, "score"), 3), *_varied(group), equal_cell(f),
        ])  # fmt: skip
    header = ["processor", "model", "acceptance", "tokens/pass", "tokens/s",
              "speed-up (range)", "score", "distinct-1", "distinct-2",
              "same tokens"]  # fmt: skip
    return Table(f"processors-{name}", "Questions: processor by model", header, cells)


def _ngram_table(rows: Sequence[Row], name: str) -> Table:
    greedy = [row for row in rows if row["processor"] == "greedy" and row["drafter"] == "ngram"]
    cells = []
    columns = ("order", "min_count", "filler_top_k")
    for key, group in sorted(grouped(greedy, *columns).items()):
        f = summary(group)
        cells.append([
            *(str(int(k)) for k in key), percent(f["acceptance"]), number(f["tokens_per_pass"]),
            number(f["tokens_per_second"], 1), ranged(f), equal_cell(f),
        ])  # fmt: skip
    header = ["N", "min_count", "filler_top_k", "acceptance", "tokens/pass", "tokens/s",
              "speed-up (range)", "same tokens"]  # fmt: skip
    return Table(f"ngram-{name}", "N-grams, greedy: one setting at a time", header, cells)


def _noise_table(rows: Sequence[Row], name: str) -> Table:
    cells = []
    for (noise, method), group in grouped(rows, "noise_scale", "method").items():
        f = summary(group)
        cells.append([
            f"{noise:g}", _model(method), number(_mean(group, "emitted"), 0), *_varied(group),
            percent(f["acceptance"]), number(f["tokens_per_second"], 1),
            "1" if method == PLAIN else number(f["speedup"]), equal_cell(f),
        ])  # fmt: skip
    header = ["noise", "model", "tokens", "distinct-1", "distinct-2", "acceptance", "tokens/s",
              "speed-up", "same tokens"]  # fmt: skip
    return Table(f"noise-{name}", "Noise sweep", header, cells)


# ---------------------------------------------------------------- plots


def _speed_plot(rows: Sequence[Row], name: str) -> Plot:
    return Plot(
        f"speed-{name}", "Speed-up by processor", functools.partial(_draw_speed, rows=rows),
        "Bars: mean over questions; lines: from the slowest question to the fastest.", (9.0, 4.2),
    )  # fmt: skip


def _draw_speed(figure: Any, rows: Sequence[Row]) -> None:
    axes = figure.subplots()
    processors = list(dict.fromkeys(row["processor"] for row in rows))
    for side, method in ((-0.19, "speculative"), (0.19, "ngram")):
        bars = []
        for x, processor in enumerate(processors):
            group = [r for r in rows if (r["processor"], r["method"]) == (processor, method)]
            f = summary(group)
            if f["speedup"] is not None:
                bars.append((x + side, f))
        axes.bar([x for x, _ in bars], [f["speedup"] for _, f in bars], 0.36,
                 color=COLOURS[method], label=method)  # fmt: skip
        for place, f in bars:
            axes.plot(
                [place, place], [f["speedup_min"], f["speedup_max"]], color="#222222", linewidth=1.2
            )
    axes.axhline(1.0, color="#aa3333", linestyle="--", linewidth=1.2)
    axes.set_xticks(range(len(processors)), processors)
    axes.set_ylabel("times plain decoding")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)


def _noise_plot(rows: Sequence[Row], name: str) -> Plot:
    return Plot(
        f"noise-{name}", "What noise does", functools.partial(_draw_noise, rows=rows),
        "Means over seeds.", (10.0, 3.8),
    )  # fmt: skip


def _draw_noise(figure: Any, rows: Sequence[Row]) -> None:
    panels = figure.subplots(1, 3)
    for axes, column, title in zip(
        panels, ("distinct_1", "distinct_2", "acceptance"),
        ("distinct-1", "distinct-2", "acceptance"), strict=True,
    ):  # fmt: skip
        axes.set_title(title)
        axes.set_xlabel("noise scale")
        for method, colour in COLOURS.items():
            points = []
            for (noise,), group in grouped(
                [row for row in rows if row["method"] == method], "noise_scale"
            ).items():
                value = (
                    summary(group)["acceptance"] if column == "acceptance" else _mean(group, column)
                )
                if value is not None:
                    points.append((noise, value))
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", color=colour,
                      label=_model(method))  # fmt: skip
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3)
