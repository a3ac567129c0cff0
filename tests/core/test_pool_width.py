"""How many threads a pool uses on a crowded machine, against machines that are made up."""

from __future__ import annotations

from typing import Any

import pytest

from helpers import native

base = native("base")

QUIET = [0.0004, 0.0002, 0.00015, 0.0001]  # seconds of a task with 1 to 4 threads
CROWDED = [0.0008, 0.003, 0.01, 0.03]


def widths(w: Any, seconds: float, times: list[float], crowded: bool, n: int = 4) -> list[int]:
    """Of all tasks of so many seconds."""
    found, passed = [], 0.0
    while passed < seconds:
        found.append(w.task(n, times, crowded))
        passed += times[found[-1] - 1]
    return found


def share(found: list[int], width: int, times: list[float]) -> float:
    """Of the time that they took."""
    return found.count(width) * times[width - 1] / sum(times[n - 1] for n in found)


def test_all_threads_are_used_until_others_want_the_processors() -> None:
    w = base.Width()
    assert set(widths(w, 5.0, CROWDED, crowded=False)) == {4}
    assert w.at_rest


def test_fewer_are_used_where_that_is_faster() -> None:
    w = base.Width()
    widths(w, 3.0, CROWDED, crowded=True)
    found = widths(w, 20.0, CROWDED, crowded=True)
    assert share(found, 1, CROWDED) > 0.9
    assert set(found) == {1, 2}  # what it might be by now is tried


@pytest.mark.parametrize("best", [1, 2, 3, 4])
def test_what_is_fastest_is_found(best: int) -> None:
    times = [0.001 * (1 + abs(n - best)) for n in (1, 2, 3, 4)]
    w = base.Width()
    widths(w, 3.0, times, crowded=True)
    assert share(widths(w, 20.0, times, crowded=True), best, times) > 0.85


def test_all_are_used_again_when_the_others_are_gone() -> None:
    w = base.Width()
    widths(w, 10.0, CROWDED, crowded=True)
    found = widths(w, 10.0, QUIET, crowded=False)
    assert w.at_rest
    assert share(found, 4, QUIET) > 0.6  # of ten seconds, three at most until that is seen


def test_a_crowd_in_which_all_threads_are_faster_costs_little() -> None:
    w = base.Width()
    found = widths(w, 30.0, QUIET, crowded=True)
    assert share(found, 4, QUIET) > 0.95
    widths(w, 3.0, QUIET, crowded=False)
    assert w.at_rest


def test_two_that_are_nearly_as_fast_do_not_take_turns() -> None:
    times = [0.001, 0.00095, 0.00097, 0.00093]
    w = base.Width()
    found = widths(w, 20.0, times, crowded=True)
    assert share(found, 4, times) > 0.9


def test_tasks_of_one_thread_and_of_fewer_are_let_alone() -> None:
    w = base.Width()
    assert set(widths(w, 2.0, QUIET, crowded=True, n=1)) == {1}
    assert w.at_rest
    widths(w, 10.0, CROWDED, crowded=True)
    assert w.task(1, CROWDED, True) == 1
    assert w.task(2, CROWDED, True) in (1, 2)


def test_a_task_that_wants_more_threads_gets_them() -> None:
    w = base.Width()
    widths(w, 10.0, CROWDED[:2], crowded=True, n=2)
    w.task(4, CROWDED, False)
    assert w.at_rest
    assert w.task(4, CROWDED, False) == 4
    assert w.task(2, CROWDED, False) == 2


def test_time_between_tasks_does_not_count() -> None:
    w = base.Width()
    for _ in range(2000):
        w.task(2, [0.002, 0.001], True)
        w.pause(0.01)
    assert w.task(2, [0.002, 0.001], True) in (1, 2)
    found = [w.task(2, [0.002, 0.001], True) for _ in range(2000)]
    assert found.count(2) > 1700
