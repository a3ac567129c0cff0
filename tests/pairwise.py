"""Grids of parameters of which a usual run takes a part that holds every pair of values."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def pairwise(*factors: Sequence[Any]) -> list[Any]:
    """For `pytest.mark.parametrize`: every combination of the factors' values, those marked slow
    that the others do without: any two values of two factors stand in one of the others."""
    grid = list(itertools.product(*(range(len(factor)) for factor in factors)))

    def pairs(row: tuple[int, ...]) -> set[tuple[int, int, int, int]]:
        at = list(enumerate(row))
        return {(i, a, j, b) for (i, a), (j, b) in itertools.combinations(at, 2)}

    missing = set().union(*map(pairs, grid))
    taken = set()
    while missing:
        best = max(grid, key=lambda row: len(pairs(row) & missing))
        taken.add(best)
        missing -= pairs(best)
    return [
        pytest.param(
            *(factor[i] for factor, i in zip(factors, row, strict=True)),
            marks=() if row in taken else pytest.mark.slow,
        )
        for row in grid
    ]


def in_turn(values: Iterable[Any], others: Sequence[Any]) -> list[Any]:
    """Every pair; those marked slow but one for each of `values`, with the `others` in turn."""
    return [
        pytest.param(value, other, marks=() if i % len(others) == j else pytest.mark.slow)
        for i, value in enumerate(values)
        for j, other in enumerate(others)
    ]
