"""What is left of a grid of parameters still holds every pair."""

from __future__ import annotations

import itertools

import pytest

from pairwise import in_turn, pairwise


@pytest.mark.parametrize(
    "factors", [("abc", "xyz"), ("ab", "xyz", "123", "uv"), ("ab", "ab", "abcd"), ("abc",) * 4]
)
def test_every_pair_of_values_stands_in_a_row_that_is_not_slow(factors: tuple[str, ...]) -> None:
    rows = pairwise(*factors)
    assert [row.values for row in rows] == list(itertools.product(*factors))
    usual = [row.values for row in rows if not row.marks]
    for i, j in itertools.combinations(range(len(factors)), 2):
        found = {(row[i], row[j]) for row in usual}
        assert found == set(itertools.product(factors[i], factors[j]))
    if len(factors) > 2:
        assert len(usual) < 0.6 * len(rows)


def test_others_take_turns() -> None:
    rows = in_turn("abc", [1, 2])
    usual = [row.values for row in rows if not row.marks]
    assert usual == [("a", 1), ("b", 2), ("c", 1)]
    assert len(rows) == 6
