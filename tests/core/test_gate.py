"""The line of those who wait for a place: its order, and Ctrl-C at any moment."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from types import FrameType

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

from specdec_native import _gate  # noqa: E402


def interrupt(n: int, call: Callable[[], object]) -> bool:
    """Whether `call` was interrupted: where Python looks for signals in the gate the n-th time,
    which is after the call of a built-in function and when a function begins."""
    left = n

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal left
        if event in ("call", "c_return") and frame.f_code.co_filename == _gate.__file__:
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(before)
    return False


def interrupted_wait(n: int) -> tuple[bool, int]:
    """Of one that is first, is called in vain and then gets a place, with one behind it: whether it
    was interrupted, and how many are left in the line, who must have been called."""
    gate = _gate.Gate()
    woken: list[bool] = []

    def behind() -> None:
        woken.append(True)

    def attempt() -> bool:
        if behind in gate._line:
            return True
        gate.wait_for_place(behind)
        gate.place_is_free()
        assert woken == [], "it is not the first"
        return False

    interrupted = interrupt(n, lambda: gate.wait(attempt, lambda: 9))
    assert list(gate._line) in ([], [behind]), n
    assert gate.is_empty or woken, f"interrupted at {n}, and the next one was not called"
    return interrupted, len(gate._line)


def test_an_interrupted_wait_leaves_the_line_and_its_turn_to_the_next() -> None:
    runs = [interrupted_wait(n) for n in range(1, 60)]
    assert runs[-1] == (False, 1), "there are more moments"
    assert sum(interrupted for interrupted, _ in runs) > 15
    assert sum(n_left for _, n_left in runs) > 50


def test_a_wait_without_success_leaves_its_turn_to_the_next() -> None:
    gate = _gate.Gate()
    woken: list[bool] = []

    def attempt() -> bool:
        gate.wait_for_place(lambda: woken.append(True))
        return False

    assert not gate.wait(attempt, lambda: 0.0)
    assert woken == [True]


def test_who_was_called_keeps_its_place_in_the_line() -> None:
    gate = _gate.Gate()
    called: list[str] = []

    def first() -> None:
        called.append("first")

    def second() -> None:
        called.append("second")

    assert gate.wait_for_place(first)
    assert not gate.wait_for_place(second)
    gate.place_is_free()
    assert called == ["first"]
    assert not gate.is_empty, "a newcomer would overtake it"
    assert not gate.wait_for_place(second)
    assert gate.wait_for_place(first)
    gate.leave(first)
    assert called == ["first", "second"]
    assert gate.wait_for_place(second)
    gate.leave(second)
    assert gate.is_empty


def test_closing_calls_everybody() -> None:
    gate = _gate.Gate()
    called: list[int] = []
    for n in range(3):
        gate.wait_for_place(lambda n=n: called.append(n))  # type: ignore[misc]
    gate.close()
    assert called == [0, 1, 2]
    assert gate.wait_for_place(lambda: None), "and is refused"


def test_many_threads_share_few_places() -> None:
    """Places become free from another thread, at any moment; nobody waits for ever."""
    gate = _gate.Gate()
    places = [None] * 2
    most = 0

    def work() -> None:
        nonlocal most

        def attempt() -> bool:
            try:
                places.pop()
            except IndexError:
                return False
            return True

        for _ in range(50):
            assert gate.wait(attempt, lambda: 60.0)
            most = max(most, 2 - len(places))
            places.append(None)
            gate.place_is_free()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert gate.is_empty
    assert len(places) == 2


def test_a_place_goes_past_those_who_are_gone():
    """A task of a loop that was closed stays in the line, and nobody answers there."""
    gate = _gate.Gate()
    called: list[str] = []

    def gone() -> bool:
        called.append("gone")
        return False

    gate.wait_for_place(gone)
    assert not gate.wait_for_place(lambda: called.append("there"))
    gate.place_is_free()
    assert called == ["gone", "there"]
    gate.place_is_free()
    assert called == ["gone", "there", "there"]


def test_a_thread_that_holds_up_its_loop_goes_first():
    """The first in the line may be a task of that loop, which cannot take its turn before."""

    async def waits() -> bool:
        return gate.wait(lambda: True, lambda: 5)

    gate = _gate.Gate()
    gate.wait_for_place(lambda: None)
    assert not gate.wait(lambda: True, lambda: 0.01)
    assert asyncio.run(waits())
    assert len(gate._line) == 1
    assert not gate._blocking
