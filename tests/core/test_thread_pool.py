"""The thread pool that every kernel runs on, and the random numbers that every draw comes from."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import pytest

from helpers import native

base = native("base")


@pytest.fixture(autouse=True)
def all_threads():
    """Whatever else this machine does: these tests are about the threads themselves."""
    return base.AllThreads()


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
def test_every_chunk_is_taken_once_and_barriers_hold(n_threads):
    for n_chunks in (0, 1, n_threads, 37):
        for _ in range(20):
            result = base.run_task(n_threads, 5, n_chunks)
            assert result["entered"] == [1] * n_threads
            assert result["taken"] == [1] * (5 * n_chunks)
            assert result["early"] == 0


def test_tasks_of_changing_sizes_follow_each_other():
    for i in range(500):
        n_threads = 1 + i * 7 % 5
        assert base.run_task(n_threads, 1, 3)["entered"] == [1] * n_threads


def test_threads_that_sat_out_come_back():
    """Asleep or on the way there: tasks of two threads between those of eight, with pauses."""
    for i in range(40):
        for n_threads in (8, 2, 2, 3, 8):
            assert base.run_task(n_threads, 2, 5)["entered"] == [1] * n_threads
            time.sleep(0.0004 * (i % 5))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="how many processors there are")
def test_threads_on_a_crowded_machine():
    """Others want every processor: who waits sleeps there and must be woken."""
    # They end by themselves where nobody is left to end them.
    work = "import time; end = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
    hogs = []
    try:
        for _ in range(2 * len(os.sched_getaffinity(0))):
            hogs.append(subprocess.Popen([sys.executable, "-S", "-c", work]))
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            for n_threads in (2, 3, 8, 2):
                result = base.run_task(n_threads, 5, 7)
                assert result["entered"] == [1] * n_threads
                assert result["taken"] == [1] * 35
                assert result["early"] == 0
    finally:
        for process in hogs:
            process.kill()
            process.wait()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux moves threads")
def test_a_thread_is_moved_to_another_processor():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor")
    n_there = 0
    for _ in range(20):
        before, moved, after, nowhere = base.move_busy_thread()
        assert moved
        assert not nowhere
        assert after in os.sched_getaffinity(0)
        n_there += after != before  # but for what the scheduler does afterwards
    assert n_there > 5


def test_callers_take_turns():
    n_callers, n_tasks, n_threads = 4, 300, 3
    expected = sum(1 + (c + t) % n_threads for c in range(n_callers) for t in range(n_tasks))
    assert base.run_concurrently(n_callers, n_tasks, n_threads) == expected


@pytest.mark.parametrize("n_threads", [1, 2, 3, 5])
@pytest.mark.parametrize("n_barriers,at", [(0, 0), (3, 0), (3, 1), (3, 3)])
def test_what_a_thread_throws_is_thrown_when_all_are_done(n_threads, n_barriers, at):
    """Memory that a thread needs for itself may run out."""
    everyone = list(range(n_threads))
    for who in ([0], [n_threads - 1], everyone[1:], everyone):
        if not who:
            continue
        n_through, n_thrown = base.run_failing(n_threads, 10, n_barriers, who, at)
        assert n_thrown == 10
        # Behind the last barrier each is for itself, once it has left it.
        others = 10 * (n_threads - len(who))
        assert n_through <= (others if at == n_barriers else 0)
        assert n_through == others or n_barriers > 0
        assert base.run_failing(n_threads, 3, 2, [], 0) == (3 * n_threads, 0)
        assert base.run_task(n_threads, 3, 7)["taken"] == [1] * 21


def test_the_default_does_not_exceed_what_the_process_may_use(monkeypatch):
    monkeypatch.delenv("SPECDEC_THREADS", raising=False)
    assert 1 <= base.default_n_threads() <= len(os.sched_getaffinity(0))


def test_the_environment_may_say_how_many(monkeypatch):
    for given, n in (("1", 1), ("3", 3), ("256", 256)):
        monkeypatch.setenv("SPECDEC_THREADS", given)
        assert base.default_n_threads() == n
    for given in ("0", "257", "-1", "2x", "x", " 2", "99999999999"):
        monkeypatch.setenv("SPECDEC_THREADS", given)
        with pytest.raises(Exception, match=r"SPECDEC_THREADS must be .* from 1 to 256, not"):
            base.default_n_threads()


def philox(seed: int, stream: int, position: int, index: int) -> int:
    """Philox-4x32-10 (Salmon et al. 2011), the counter being (position, stream, index)."""
    mask = 0xFFFFFFFF
    c = [position & mask, position >> 32, stream, index]
    k = [seed & mask, seed >> 32]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & mask, p0 >> 32 ^ c[3] ^ k[1], p0 & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c[1] << 32 | c[0]


def test_random_numbers_are_those_of_philox():
    # The generator's published known answers for all-zero and all-one input, words 0 and 1.
    assert base.random_bits(0, 0, 0, 0) == 0xE169C58D_6627E8D5
    ones = (2**64 - 1, 2**32 - 1, 2**64 - 1, 2**32 - 1)
    assert base.random_bits(*ones) == 0x41C83B0E_408F276D
    for args in [(0, 0, 0, 0), ones, (7, 1, 12345, 3), (2**40 + 5, 3, 2**35 + 9, 77)]:
        assert base.random_bits(*args) == philox(*args)


def test_random_numbers_of_several_indices_are_those_of_each():
    rng = random.Random(5)
    for seed, stream, position, first in [
        (0, 0, 0, 0),
        (2**64 - 1, 2**32 - 1, 2**64 - 1, 2**32 - 3),  # indices begin again at 0
        *((rng.getrandbits(64), 5, rng.getrandbits(64), rng.getrandbits(32)) for _ in range(50)),
    ]:
        got = base.random_lanes(seed, stream, position, first)
        assert got == [philox(seed, stream, position, (first + i) % 2**32) for i in range(len(got))]
