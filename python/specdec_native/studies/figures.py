"""From rows to figures: equality of tokens, paired speed-ups, means over prompts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .runner import Row

Group = tuple[Any, ...]


def tidy(rows: Sequence[Row]) -> list[Row]:
    """Adds to each row what compares it with its baseline's row of the same block, round and turn.

    identical: the same token ids; None for a baseline, an error, or a method that is not exact.
    speedup: of tokens per second while decoding. total_speedup: reading the prompt included.
    Both None without timings or tokens.
    """
    index = {(r["block"], r["method"], r["round"], r["turn"]): r for r in rows}
    result = []
    for row in rows:
        base = index.get((row["block"], row["baseline"], row["round"], row["turn"]))
        more: Row = {"identical": None, "speedup": None, "total_speedup": None}
        if base is not None and base is not row and not row["error"] and not base["error"]:
            if row["exact"]:
                more["identical"] = row["token_ids"] == base["token_ids"]
            more["speedup"] = _ratio(row["tokens_per_second"], base["tokens_per_second"])
            more["total_speedup"] = _ratio(_total_rate(row), _total_rate(base))
        result.append({**row, **more})
    return result


def _total_rate(row: Row) -> float | None:
    """Tokens per second of the whole call."""
    return float(row["emitted"] / row["total_ms"]) if row["total_ms"] else None


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value and base else None


def different(rows: Iterable[Row]) -> list[str]:
    """Runs whose tokens are not the baseline's though they must be."""
    return [
        f"{row['pair']}, {row['task']}, {row['method']}, round {row['round'] + 1}, "
        f"turn {row['turn'] + 1}"
        for row in rows
        if row["identical"] is False
    ]


def errors(rows: Iterable[Row]) -> list[str]:
    """Each error once, with how many runs ended so."""
    counts: dict[str, int] = {}
    for row in rows:
        if row["error"]:
            text = f"{row['pair']}, {row['method']}: {row['error']}"
            counts[text] = counts.get(text, 0) + 1
    return [f"{text} ({n} runs)" if n > 1 else text for text, n in counts.items()]


def grouped(rows: Iterable[Row], *names: str) -> dict[Group, list[Row]]:
    """Rows by the values of some columns, in the order of their first appearance."""
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in names), []).append(row)
    return groups


def per_prompt(rows: Iterable[Row], column: str) -> dict[Group, float]:
    """Median over rounds of each prompt's (block's and turn's) figure, where there is one."""
    result = {}
    for key, group in grouped(rows, "block", "turn").items():
        values = [row[column] for row in group if row[column] is not None]
        if values:
            result[key] = statistics.median(values)
    return result


def geometric_mean(values: Iterable[float]) -> float | None:
    logs = [math.log(v) for v in values if v > 0]
    return math.exp(statistics.fmean(logs)) if logs else None


def share(rows: Iterable[Row], part: str, whole: str) -> float | None:
    """Of sums; None over nothing."""
    listed = list(rows)
    total = sum(row[whole] or 0 for row in listed)
    return sum(row[part] or 0 for row in listed) / total if total else None


def weighted(rows: Iterable[Row], column: str, weight: str) -> float | None:
    listed = [row for row in rows if row[column] is not None and row[weight]]
    total = sum(row[weight] for row in listed)
    return sum(row[column] * row[weight] for row in listed) / total if total else None


def tokens_per_pass(rows: Iterable[Row]) -> float | None:
    """Tokens over passes of the target; plain decoding has 1.

    The token that ends an answer is not emitted, but a pass gave it.
    """
    listed = [row for row in rows if row["rounds"] is not None]
    passes = sum(row["rounds"] + (row["plain_steps"] or 0) for row in listed)
    tokens = sum(row["emitted"] + (row.get("finish_reason") == "stop") for row in listed)
    return tokens / passes if passes else None


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of one method over its prompts.

    speedup: geometric mean over prompts of each one's median over rounds, with the slowest and the
    fastest prompt; quartiles over all pairs of runs tell the noise.
    """
    good = [row for row in rows if not row["error"]]
    speedups = per_prompt(good, "speedup")
    rates = per_prompt(good, "tokens_per_second")
    pairs = [row["speedup"] for row in good if row["speedup"] is not None]
    checked = [row["identical"] for row in good if row["identical"] is not None]
    cuts = statistics.quantiles(pairs, n=4) if len(pairs) > 1 else [None] * 3
    return {
        "prompts": len({(row["block"], row["turn"]) for row in good}),
        "runs": len(good),
        "errors": len(rows) - len(good),
        "tokens": sum(row["emitted"] for row in good),
        "tokens_per_second": geometric_mean(rates.values()),
        "speedup": geometric_mean(speedups.values()),
        "speedup_min": min(speedups.values(), default=None),
        "speedup_max": max(speedups.values(), default=None),
        "speedup_quartiles": (cuts[0], cuts[2]),
        "total_speedup": geometric_mean(per_prompt(good, "total_speedup").values()),
        "acceptance": share(good, "accepted", "drafted"),
        "tokens_per_pass": tokens_per_pass(good),
        "in_set": weighted(good, "in_set", "candidate_positions"),
        "candidate_acceptance": weighted(good, "candidate_acceptance", "candidate_positions"),
        "identical": (sum(checked), len(checked)),
    }


def by(rows: Iterable[Row], *names: str) -> list[tuple[Group, dict[str, Any]]]:
    return [(key, summary(group)) for key, group in grouped(rows, *names).items()]


def read_gb_s(rows: Iterable[Row]) -> list[float]:
    """Bandwidth at which each plain run read the weights: what the memory gave in those minutes."""
    return [
        row["bytes_per_step"] * row["tokens_per_second"] / 1e9
        for row in rows
        if row["drafter"] == "none" and row["engine"] == "specdec" and row["tokens_per_second"]
        if row.get("bytes_per_step")  # not in rows of the first builds
    ]


# ---------------------------------------------------------------- cells of tables


def number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}".replace("%", " %")


def ranged(figures: Mapping[str, Any], name: str = "speedup", digits: int = 2) -> str:
    """Mean over prompts and, in brackets, the slowest and the fastest."""
    low, high = figures[f"{name}_min"], figures[f"{name}_max"]
    text = number(figures[name], digits)
    return text if low is None else f"{text} ({low:.{digits}f}-{high:.{digits}f})"


def equal_cell(figures: Mapping[str, Any]) -> str:
    same, of = figures["identical"]
    return f"{same}/{of}" if of else "-"


Summarise = Callable[[Sequence[Row]], dict[str, Any]]
