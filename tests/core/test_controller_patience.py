"""How often a controller asks who has had nothing to say for long."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from helpers import native

control = native("control")

STEP_MS = 0.25


def a_control(lookup: bool, draft: float = 0.2) -> Any:
    """draft: what a step of a model takes, in plain steps."""
    c = control.Control([("drafter", lookup)])
    c.calibrate([(1, STEP_MS), (2, 1.4 * STEP_MS), (8, 3 * STEP_MS)])
    if not lookup:
        c.calibrate_drafter(0, [(1, draft * STEP_MS), (8, (draft + 0.1) * STEP_MS)])
    c.begin()
    return c


def look(c: Any, looking_ms: float, length: int = 0) -> bool:
    """A pass of one row, unless a lookup with so long a match is expected to pay."""
    asked = c.wants_lookups()
    choice = c.choose([(0, 4, length, 1)] if asked and length else [], 8)
    n = choice["length"] if choice["drafter"] >= 0 else 0
    rows_ms = STEP_MS * (1.0, 1.4, 1.7, 2.0, 2.3)[n]
    looking_ms = looking_ms if asked else 0.0
    c.observe(n, n + 1, looking_ms, rows_ms, looking_ms=looking_ms)
    return bool(asked)


def test_what_is_not_asking_does_not_count() -> None:
    """Committing tokens costs as much when lookups rest."""
    c = a_control(lookup=True)
    for _ in range(100):
        assert c.wants_lookups()
        c.choose([], 8)
        c.observe(0, 1, 0.1 * STEP_MS, STEP_MS, looking_ms=0.001 * STEP_MS)


def test_forced_tokens_are_no_silence() -> None:
    c = a_control(lookup=True)
    for _ in range(20):
        assert look(c, 0.1 * STEP_MS)
        c.observe(3, 4, 0.0, STEP_MS, forced=True)
    assert sum(look(c, 0.1 * STEP_MS) for _ in range(20)) < 10


def test_a_model_alone_has_no_lookups_that_could_rest() -> None:
    c = a_control(lookup=False)
    for _ in range(100):
        assert c.wants_lookups()
        c.choose([], 8)
        c.observe(0, 1, 0.1 * STEP_MS, STEP_MS, looking_ms=0.1 * STEP_MS)


@pytest.mark.parametrize("slow", [0, 3, 10])
def test_one_slow_look_is_soon_forgotten(slow: int) -> None:
    c = a_control(lookup=True)
    for n in range(24):
        look(c, STEP_MS if n == slow else 0.001 * STEP_MS)
    asked = [look(c, 0.001 * STEP_MS) for _ in range(100)]
    assert all(asked[60:])


@pytest.mark.parametrize("share,one_of", [(0.001, 1), (0.006, 2), (0.01, 3), (0.021, 6), (0.1, 8)])
def test_dear_lookups_that_say_nothing_are_asked_seldom(share: float, one_of: int) -> None:
    c = a_control(lookup=True)
    assert all(look(c, share * STEP_MS) for _ in range(24))
    asked = [look(c, share * STEP_MS) for _ in range(240)]
    assert sum(asked) == pytest.approx(240 / one_of, abs=1)
    assert not any(a == b == (one_of > 1) for a, b in itertools.pairwise(asked))


def test_a_pass_without_them_says_so_and_the_request_says_why() -> None:
    c = a_control(lookup=True)
    while look(c, 0.02 * STEP_MS):
        pass
    asked = c.wants_lookups()
    assert not asked
    assert c.choose([], 8)["reason"] == "lookups rest"
    c.observe(0, 1, 0.0, STEP_MS)
    assert c.speculation == "off: nothing to propose"


def test_lookups_that_have_something_to_say_are_asked_always_again() -> None:
    c = a_control(lookup=True)
    for _ in range(100):
        look(c, 0.02 * STEP_MS)
    while not look(c, 0.02 * STEP_MS, length=20):
        pass
    assert all(look(c, 0.02 * STEP_MS) for _ in range(20))


def test_they_are_asked_always_at_the_beginning_of_a_request() -> None:
    c = a_control(lookup=True)
    for _ in range(100):
        look(c, 0.02 * STEP_MS)
    c.begin()
    assert all(look(c, 0.02 * STEP_MS) for _ in range(24))


def a_model_that_is_worth_nothing(draft: float = 0.2) -> Any:
    c = a_control(lookup=False, draft=draft)
    for _ in range(200):
        c.judge(0, 0, control.confidence_grade(0.5), False)
        c.observe(0, 4, 0.0, 4 * STEP_MS)  # credit for tries
    return c


def probes(c: Any, n_tokens: int, right: bool = False, draft: float = 0.2) -> list[int]:
    """At which tokens of a request the model drafted, if it is worth nothing, or is right."""
    c.begin()
    found, n = [], 0
    while n < n_tokens:
        choice = c.choose([(0, 8, 0, 1)], 8)
        if choice["drafter"] < 0:
            c.observe(0, 1, 0.0, STEP_MS)
            n += 1
            continue
        found.append(n)
        c.judge(0, 0, control.confidence_grade(0.5), right)
        n_new = 2 if right else 1
        c.observe(1, n_new, draft * STEP_MS, (1.0 if right else 1.4) * STEP_MS)
        n += n_new
    return found


def test_a_model_is_asked_half_as_often_after_each_try_in_vain() -> None:
    c = a_model_that_is_worth_nothing()
    found = probes(c, 2000)
    gaps = [b - a for a, b in itertools.pairwise(found)]
    assert gaps[:2] == pytest.approx([64, 128], abs=2)
    assert gaps[2:] == pytest.approx([256] * len(gaps[2:]), abs=2)
    assert len(gaps) >= 6
    # A new text is worth a look, and not the sum of all that were tried before.
    again = probes(c, 400)
    assert again[0] < 60  # as soon as so much may be lost
    assert again[1] - again[0] == pytest.approx(256, abs=2)


def test_a_model_that_brings_something_is_asked_as_often_as_before() -> None:
    c = a_model_that_is_worth_nothing()
    probes(c, 2000)
    assert len(probes(c, 400, right=True)) > 40
    found = probes(c, 400)
    assert min(b - a for a, b in itertools.pairwise(found)) < 70


def test_a_model_that_could_hardly_pay_is_tried_seldom_and_not_for_each_text() -> None:
    c = a_model_that_is_worth_nothing(0.4)
    probes(c, 2000, draft=0.4)
    assert sum(len(probes(c, 100, draft=0.4)) for _ in range(10)) in (3, 4)


def test_a_model_that_cannot_pay_however_right_it_is_is_hardly_tried() -> None:
    c = a_model_that_is_worth_nothing(0.9)
    found = probes(c, 3000, draft=0.9)
    assert len(found) == 3000 // 512
    assert all(b - a >= 512 for a, b in itertools.pairwise(found))


def test_a_model_that_was_dear_when_it_was_timed_is_found_again() -> None:
    c = a_model_that_is_worth_nothing(0.9)
    early = probes(c, 3000, right=True, draft=0.1)
    later = probes(c, 1000, right=True, draft=0.1)
    assert len(early) >= 4
    assert len(later) > 200


def test_lookups_that_gain_less_than_expected_have_to_promise_more() -> None:
    c = a_control(lookup=True)

    def drafts(match_length: int, n_emitted: int) -> bool:
        choice = c.choose([(0, 4, match_length, 1)], 8)
        if choice["drafter"] < 0:
            assert choice["reason"] != "no credit left for a worst case"
            c.observe(0, 1, 0.0, STEP_MS)
            return False
        # No judgement reaches the rates: they go on promising the same.
        c.observe(4, n_emitted, 0.0, 2.1 * STEP_MS)
        return True

    for _ in range(100):
        c.observe(4, 100, 0.0, 2.1 * STEP_MS)  # credit for what follows
    in_vain = [drafts(12, 1) for _ in range(60)]
    assert sum(in_vain[:10]) >= 9
    assert sum(in_vain[30:]) <= 5
    # A longer match may still promise enough, and when it keeps that the others come back.
    assert [drafts(20, 5) for _ in range(40)].count(True) > 35
    assert drafts(12, 5)
    # So they do, without one, where nothing was drafted for long.
    for _ in range(100):
        drafts(12, 1)
    for _ in range(400):
        c.choose([], 8)
        c.observe(0, 1, 0.0, STEP_MS)
    assert [drafts(12, 1) for _ in range(3)].count(True) > 1


def test_what_drafts_gain_in_company_is_no_measure_of_their_promises() -> None:
    c = a_control(lookup=True)
    for _ in range(60):
        c.observe(4, 100, 0.0, 2.1 * STEP_MS)  # credit
    n_drafted = 0
    for _ in range(60):
        c.set_company(4, 4, 4.0)
        choice = c.choose([(0, 4, 12, 1)], 8)
        n = choice["length"] if choice["drafter"] >= 0 else 0
        n_drafted += n
        c.observe(n, n + 1, 0.0, 2 * STEP_MS)  # of which plain rows would have had a fifth each
    assert n_drafted > 60
    c.set_company(0, 0, 0.0)
    assert c.choose([(0, 4, 12, 1)], 8)["drafter"] == 0
