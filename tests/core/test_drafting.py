"""What a controller learns of passes: drafts that were used, those that were not, forced ones."""

from __future__ import annotations

from typing import Any

import pytest

from helpers import native

m = native("decode")
control = native("control")
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


# ---------------------------------------------------------------- what a grammar refuses


def test_a_token_that_the_grammar_refuses_was_wrong() -> None:
    """Of four drafted tokens the grammar leaves some, and all that are left are right."""
    for most in range(4):
        rates = m.rates_after_cut(most, most)
        whole = m.rates_after_cut(4, most)  # the target refuses that token itself
        assert rates == whole


def test_what_is_left_of_a_draft_may_be_wrong_by_itself() -> None:
    assert m.rates_after_cut(3, 1) == m.rates_after_cut(4, 1)


def drafting_control() -> Any:
    c = control.Control([("model", False)])
    c.calibrate([(1, 10.0), (2, 10.1), (8, 10.7), (16, 12.0)])
    c.calibrate_drafter(0, [(1, 1.0), (8, 1.2)])
    c.observe(0, 1, 0.0, 10.0)
    return c


def test_a_draft_that_is_cut_costs_what_it_was_made_of() -> None:
    c = drafting_control()
    for _ in range(20):
        c.choose([(0, 8, 0, 1)], 8)
        before = c.credit
        c.observe(1, 2, 8.0, 10.1, n_made=8)  # each step as dear as it was
        assert c.credit == pytest.approx(before + 20.0 - 8.0 - 10.1, rel=0.01)
    assert c.drafter_ms(0, 1) == pytest.approx(1.0, rel=0.01)


def test_a_draft_of_which_nothing_is_left_was_one() -> None:
    """It has its cost, and is not probed again in the next pass."""
    c = drafting_control()
    c.begin()
    for _ in range(40):
        c.judge(0, 0, control.confidence_grade(0.5), False)
    c.observe(0, 40, 0.0, 10.0)  # plain tokens, of whose time a little may be lost
    assert c.choose([(0, 8, 0, 1)], 8)["reason"] == "probe"
    c.observe(0, 1, 1.0, 10.0, n_made=1)
    assert c.drafter_ms(0, 1) == pytest.approx(1.0, rel=0.01)
    assert c.choose([(0, 8, 0, 1)], 8)["drafter"] == -1


@pytest.mark.parametrize("lookup", [True, False])
def test_a_dropped_draft_was_refused_and_costs_its_pass_besides(lookup: bool) -> None:
    """Whatever it would have been: here its first token is right."""
    # Drafting takes its time by the clock, which only takes from what is earned: the most counts.
    refused = [m.after_refusal(lookup, False) for _ in range(20)]
    dropped = [m.after_refusal(lookup, True) for _ in range(20)]
    assert {rate for rate, _, _ in dropped} == {rate for rate, _, _ in refused}
    earned, dropped_earned = (max(one[1] for one in runs) for runs in (refused, dropped))
    assert dropped_earned == pytest.approx(earned - 10.0, abs=0.5)
    (plain_ms,) = {plain_ms for _, _, plain_ms in refused}
    (dropped_plain_ms,) = {plain_ms for _, _, plain_ms in dropped}
    assert dropped_plain_ms == pytest.approx(plain_ms, abs=0.2)


# ---------------------------------------------------------------- rows of a pass


@pytest.mark.parametrize("draft_max", [8, 40])
def test_leaves_beside_a_chain_count_among_the_rows_of_a_tree(draft_max: int) -> None:
    most = draft_max  # rows, the one that the draft follows included
    assert m.eager_draft(draft_max, most, True) == (most - 1, False)
    assert m.eager_draft(draft_max, 512, True) == (draft_max, False)
    assert m.eager_draft(draft_max, most, False) == (draft_max, True)


# ---------------------------------------------------------------- what a grammar forces

FIXED = ([7, 8, 9], 3)


def test_forced_tokens_earn_what_they_save() -> None:
    n_forced, credit = m.forced_in([FIXED, FIXED])
    assert n_forced == [3, 3]
    # Eight tokens of a second each in two passes of a second.
    assert credit == pytest.approx(6000.0, abs=200.0)


def test_a_run_whose_first_token_was_refused_is_not_forced_again() -> None:
    refused = ([7, 8, 9], 0)
    assert m.forced_in([FIXED, refused, FIXED, FIXED])[0] == [3, 3, 0, 0]
    assert m.forced_in([refused, ([], 0), FIXED])[0] == [3, 0, 3]
    assert m.forced_in([([7, 8, 9], 1), FIXED])[0] == [3, 3]


# ---------------------------------------------------------------- before the first pass


def test_what_begins_a_request_is_taken_of_what_was_earned() -> None:
    assert m.credit_after_beginning(30, 1000.0) <= 970.0
    assert m.credit_after_beginning(30, 10.0) == 0.0
    assert m.credit_after_beginning(30, -10.0) == -10.0
    c, same = earning_control(), earning_control()
    c.debit_beginning(20.0)
    assert c.credit == pytest.approx(same.credit - 20.0)
    others = drafting_control()
    before = others.credit
    c.end_beside(others)
    same.end_beside(others)
    assert c.credit == pytest.approx(same.credit - 20.0)
    assert same.credit > before


def test_beginnings_alone_never_end_drafting() -> None:
    """They come whether anything is drafted or not, and nothing could earn them back then."""
    c, same = drafting_control(), drafting_control()
    for _ in range(1000):
        c.begin()
        c.debit_beginning(1000.0)
        c.end()
    for one in (c, same):
        one.begin()
    c.debit_beginning(1000.0)
    assert c.choose([(0, 8, 0, 1)], 8) == same.choose([(0, 8, 0, 1)], 8)
    c.end_beside(same)
    assert c.credit >= min(same.credit, 0.0)


def earning_control() -> Any:
    """In a request that has earned something, but less than what outlives one."""
    c = drafting_control()
    c.begin()
    for _ in range(2):
        c.choose([(0, 8, 0, 1)], 8)
        c.observe(3, 4, 1.0, 10.3)
    assert 20.0 < c.credit < 80.0
    return c
