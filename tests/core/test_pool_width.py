"""How many threads a pool uses on a crowded machine, against machines that are made up."""

from __future__ import annotations

from typing import Any

from helpers import native

base = native("base")

TASK = 0.0004  # seconds of one thread
QUIET = [TASK, TASK / 2, TASK / 3, TASK / 4], [TASK] * 4  # passed, and busy: of 1 to 4 threads


def crowded(*speeds: float) -> tuple[list[float], list[float]]:
    """How much is done with 1, 2, ... threads, against one that runs alone."""
    return [TASK / speed for speed in speeds], [TASK] * len(speeds)


def run(w: Any, seconds: float, machine: Any, is_crowded: bool) -> list[float]:
    """The time that passed with 1, 2, ... threads, of so much in all."""
    passed, busy = machine
    spent = [0.0] * len(passed)
    while sum(spent) < seconds:
        width = w.task(passed, busy, is_crowded)
        spent[width - 1] += passed[width - 1]
    return [each / sum(spent) for each in spent]


def test_all_threads_are_used_until_others_want_the_processors() -> None:
    w = base.Width(4)
    assert run(w, 5.0, crowded(0.9, 0.5, 0.3, 0.2), False)[3] == 1.0
    assert w.at_rest


def test_fewer_are_used_where_all_get_less_done() -> None:
    w = base.Width(4)
    spent = run(w, 60.0, crowded(0.9, 0.5, 0.3, 0.2), True)
    assert spent[0] > 0.9
    assert min(spent) > 0  # all of them get another chance now and then


def test_as_many_are_used_as_get_something_done() -> None:
    w = base.Width(4)
    spent = run(w, 60.0, crowded(1.0, 1.9, 2.9, 2.3), True)
    assert spent[2] > 0.9


def test_fewer_that_get_less_done_are_not_kept() -> None:
    """In a heavy crowd a thread that runs alone has a small share of one processor."""
    for machine in (crowded(0.4, 0.67), crowded(0.3, 0.4, 0.5, 0.6)):
        spent = run(base.Width(len(machine[0])), 60.0, machine, True)
        assert spent[-1] > 0.85


def test_many_threads_that_get_little_done_alone_are_all_used() -> None:
    """Small tasks: half of the time goes into sharing them out. One blip, and nobody is there."""
    done = [n / (1 + 0.05 * n) for n in range(1, 17)]
    w = base.Width(16)
    passed, busy = crowded(*done)
    assert w.task(passed, busy, True) == 16
    spent = run(w, 20.0, (passed, busy), False)
    assert spent[15] > 0.95
    assert w.at_rest


def test_another_chance_costs_one_measurement() -> None:
    w = base.Width(64)
    machine = crowded(0.9, *[0.8 / n for n in range(2, 65)])
    run(w, 20.0, machine, True)
    spent = run(w, 60.0, machine, True)
    assert spent[0] > 0.97
    assert sum(share > 0 for share in spent) == 2


def test_all_are_used_in_a_crowd_where_that_is_best() -> None:
    w = base.Width(4)
    assert run(w, 10.0, crowded(0.9, 1.7, 2.4, 2.8), True)[3] == 1.0
    assert not w.at_rest
    run(w, 3.0, QUIET, False)
    assert w.at_rest


def test_all_are_used_again_when_the_others_are_gone() -> None:
    w = base.Width(4)
    run(w, 20.0, crowded(0.9, 0.5, 0.3, 0.2), True)
    spent = run(w, 10.0, QUIET, False)
    assert w.at_rest
    assert spent[3] > 0.55  # four seconds at most until that is seen


def test_long_tasks_are_measured_no_longer_than_needed() -> None:
    """One that takes half a second says enough."""
    w = base.Width(2)
    passed, busy = [0.5, 0.26], [0.5, 0.5]
    assert [w.task(passed, busy, True) for _ in range(20)] == [2] * 20
    w = base.Width(2)
    assert [w.task([0.5, 0.9], busy, True) for _ in range(17)] == [2] + [1] * 16


def test_a_crowd_that_grows_or_shrinks_is_followed() -> None:
    w = base.Width(2)
    assert run(w, 20.0, crowded(1.0, 0.7), True)[0] > 0.9
    assert run(w, 60.0, crowded(0.4, 0.67), True)[1] > 0.8
    assert run(w, 20.0, crowded(1.0, 0.7), True)[0] > 0.85
    w = base.Width(4)
    assert run(w, 20.0, crowded(1.0, 1.9, 2.9, 1.8), True)[2] > 0.85
    assert run(w, 60.0, crowded(0.9, 0.5, 0.4, 0.3), True)[0] > 0.75
    w = base.Width(4)  # other tasks, and the crowd is gone
    assert run(w, 20.0, crowded(1.0, 1.9, 2.9, 1.8), True)[2] > 0.85
    assert run(w, 60.0, crowded(0.9, 1.6, 2.2, 2.5), False)[3] > 0.85
    assert w.at_rest


def test_a_few_of_many_threads_are_found_beyond_many_that_are_no_better() -> None:
    """Those who go in step wait for the slowest one, until none is crowded."""
    done = [n if n <= 4 else 1.1 for n in range(1, 17)]
    spent = run(base.Width(16), 60.0, crowded(*done), True)
    assert spent[3] > 0.9


def test_pauses_between_requests_are_no_time_of_tasks() -> None:
    w = base.Width(2)
    passed, busy = crowded(1.0, 0.5)
    spent = [0.0, 0.0]
    for _ in range(400):
        w.pause(0.3)
        for _ in range(25):
            width = w.task(passed, busy, True)
            spent[width - 1] += passed[width - 1]
    assert spent[0] > 0.8 * sum(spent)


def test_tasks_that_take_too_long_with_fewer_threads_get_all_again() -> None:
    w = base.Width(2)
    widths = [w.task([1.25, 0.75], [0.5, 0.5], True) for _ in range(40)]
    assert widths.count(2) > 30


def test_a_process_that_was_stopped_says_nothing_of_its_threads() -> None:
    w = base.Width(2)
    assert [w.task([1.0, 600.0], [0.5, 0.5], True) for _ in range(5)] == [2] * 5


def test_nothing_is_kept_for_long() -> None:
    w = base.Width(2)
    run(w, 60.0, crowded(0.9, 0.5), True)
    passed, busy = QUIET[0][:2], QUIET[1][:2]
    seconds, width = 0.0, 1
    while width == 1:
        width = w.task(passed, busy, False)
        seconds += passed[width - 1]
    assert seconds < 9.0


def test_tasks_of_all_sizes_are_one_measure() -> None:
    """Long and short ones in turns: what counts is what is done in all of them."""
    w = base.Width(2)
    for n in range(20000):
        scale = 25 if n % 96 == 0 else 1
        width = w.task([1e-4 * scale, 0.6e-4 * scale], [1e-4 * scale] * 2, True)
        assert width == 2


def test_what_was_found_is_forgotten_without_tasks() -> None:
    w = base.Width(4)
    run(w, 20.0, crowded(0.9, 0.5, 0.3, 0.2), True)
    w.pause(0.6)
    assert run(w, 1.0, QUIET, False)[3] == 1.0
    assert w.at_rest


def test_a_pool_whose_threads_wait_uses_fewer() -> None:
    """Others that sleep while one waits for them get nothing done."""
    assert base.mean_width(2, 1200, 1000) < 1.3


def test_a_pool_uses_all_where_it_is_told_to() -> None:
    everything = base.AllThreads()
    assert base.mean_width(2, 300, 1000) == 2.0
    del everything


def test_the_time_of_all_threads_counts_and_no_waiting() -> None:
    both = min(base.busy_ms([2.0, 2.0], 20) for _ in range(5))
    assert 80.0 <= both < 100.0
    # The other one spins meanwhile, as it does for 50 microseconds.
    for alone in ([0.03, 0.0], [0.0, 0.03]):
        assert 6.0 <= min(base.busy_ms(alone, 200) for _ in range(5)) < 9.5
