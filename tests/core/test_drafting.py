"""What a controller learns of passes: drafts that were used, those that were not, forced ones."""

from __future__ import annotations

from helpers import native

m = native("decode")
FIRST = ([], [5, 6, 7, 8], [5])  # nothing forced, what a lookup says, what came


def test_what_a_lookup_said_is_judged_over_several_passes() -> None:
    right = m.rates_after([FIRST, ([], [], [6]), ([], [], [7])])
    wrong = m.rates_after([FIRST, ([], [], [9]), ([], [], [7])])
    before = m.rates_after([FIRST])
    assert right[1] > before[1] > wrong[1]


def test_tokens_behind_forced_ones_are_not_compared_with_a_lookup_from_before() -> None:
    before = m.rates_after([FIRST])
    for came in (6, 7, 9):
        assert m.rates_after([FIRST, ([6, 9], [], [6, 9]), ([], [], [came])]) == before


def test_lookups_are_judged_again_after_forced_tokens() -> None:
    forced = [FIRST, ([9], [], [9])]
    assert m.rates_after([*forced, FIRST])[0] > m.rates_after(forced)[0]
