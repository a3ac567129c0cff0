"""Times of whole calls and their means, as studies that print seconds compare them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from .runner import Row


def seconds(rows: Iterable[Row]) -> dict[tuple[str, int], float]:
    """Of each run that was timed, its prompt included, by block and round."""
    return {
        (row["block"], row["round"]): row["total_ms"] / 1000
        for row in rows
        if not row["error"] and row["total_ms"]
    }


def mean_and_deviation(rows: Iterable[Row]) -> tuple[float | None, float | None]:
    """The mean and the population's standard deviation; None without times."""
    values = list(seconds(rows).values())
    if not values:
        return None, None
    return statistics.fmean(values), statistics.pstdev(values)


def mean_speedup(rows: Sequence[Row], baseline: Sequence[Row]) -> float | None:
    """Mean time of the baseline over mean time, of the rounds that both were timed in."""
    own, base = seconds(rows), seconds(baseline)
    both = own.keys() & base.keys()
    if not both:
        return None
    return statistics.fmean(base[k] for k in both) / statistics.fmean(own[k] for k in both)


def latency_reduction(speedup: float | None) -> float | None:
    """Share of the baseline's time that is saved."""
    return None if speedup is None else 1 - 1 / speedup
