"""What measurements know of the machine: its last-level cache, time given away, spread."""

from __future__ import annotations

import sys

import pytest

from helpers import native

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the files of Linux")


@pytest.fixture
def engine():
    return native("engine")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def caches(root, *entries):
    for i, (level, size) in enumerate(entries):
        folder = root / f"sys/devices/system/cpu/cpu0/cache/index{i}"
        write(folder / "level", f"{level}\n")
        write(folder / "size", f"{size}\n")


@linux
@pytest.mark.parametrize(
    "entries, n_bytes, n_second",
    [
        ([(1, "48K"), (1, "32K"), (2, "1024K"), (3, "32768K")], 32 << 20, 1 << 20),
        ([(3, "16M"), (2, "512K")], 16 << 20, 512 << 10),
        ([(1, "32K")], 32 << 10, 32 << 10),
        ([(3, "99999999999G")], 0, 0),
        ([(3, "much")], 0, 0),
        ([], 0, 0),
    ],
)
def test_the_cache_of_the_highest_level_counts(engine, tmp_path, entries, n_bytes, n_second):
    caches(tmp_path, *entries)
    assert engine.last_level_cache_bytes(str(tmp_path)) == n_bytes
    assert engine.second_level_cache_bytes(str(tmp_path)) == n_second


@linux
def test_stolen_time_is_the_eighth_number(engine, tmp_path):
    write(tmp_path / "proc/stat", "cpu  100 1 20 500 3 0 6 70 11 12\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    assert engine.read_cpu_ticks(str(tmp_path)) == (700, 70)  # guests are part of user


@linux
@pytest.mark.parametrize("text", ["", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8\n", "cpu a b\n"])
def test_a_system_that_does_not_tell_has_none(engine, tmp_path, text):
    write(tmp_path / "proc/stat", text)
    assert engine.read_cpu_ticks(str(tmp_path)) is None


def test_this_system_tells_ticks_that_only_grow(engine):
    before = engine.read_cpu_ticks()
    sum(range(10**6))
    after = engine.read_cpu_ticks()
    assert before is not None
    assert 0 < before[0] <= after[0]
    assert engine.last_level_cache_bytes() >= 0


def test_the_spread_is_that_of_the_middle_half(engine):
    assert engine.relative_spread([5.0, 5.0, 5.0, 5.0]) == 0
    assert engine.relative_spread([1.0, 9.0]) == 0
    # One wild value does not count, a shifted half does.
    assert engine.relative_spread([10, 10, 10, 10, 10, 10, 10, 90]) == 0
    assert engine.relative_spread([10, 10, 10, 12, 14, 14, 14]) == pytest.approx(4 / 12)
